import { expect, it } from 'vitest'
import { roundTripHalves } from '../../src/bench/perftest.js'

/** Shortened: `ib_write_lat --report-unsorted` of perftest 4.5. */
const report = `
---------------------------------------------------------------------------------------
                    RDMA_Write Latency Test
 Number of qps   : 1		Transport type : IB
 GID: 00:00:00:00:00:00:00:00:00:00:255:255:10:99:00:01
---------------------------------------------------------------------------------------
 #bytes #iterations    t_min[usec]    t_max[usec]  t_typical[usec]    t_avg[usec]    t_stdev[usec]   99% percentile[usec]   99.9% percentile[usec] 
#, usec
1, 936.199
2, 37.6008
3, 17
---------------------------------------------------------------------------------------
 64      3          11.24          210.19       16.94    	       18.06       	9.19   		88.74   		210.19 
---------------------------------------------------------------------------------------
`

it('times are read one by one, in their order', () => {
  expect(roundTripHalves(report)).toEqual([936.199, 37.6008, 17])
  expect(roundTripHalves('')).toEqual([])
})
