/** praas-floor, each floor against its peer process. */
import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { native } from '../../src/native/binding.js'
import { untilGone } from '../support/cluster.js'
import { childrenOf } from '../support/processes.js'
import { floor, type Batch, type SamplerProgram } from '../support/sampler.js'
import { temporaryFolder } from '../support/temporary.js'

const names = ['ring', 'futex', 'eventfd', 'mq', 'mq-spin', 'unix', 'unix-spin', 'tcp', 'tcp-spin', 'memcpy'] as const
/** For the moment between its creation and its removal. The file system of queues is mounted on few machines; removing one tells as well. */
const queueName = `/praas-floor-${process.getuid!()}`
const sockets = ['unix', 'unix-spin', 'tcp', 'tcp-spin'] as const

function expectMeasured({ elapsedNs, samples }: Batch): void {
  expect(samples.every((sample) => sample > 0n)).toBe(true)
  expect(elapsedNs).toBeGreaterThan(0n)
}

/** One at a time: each operation begins where the one before it ended. */
function expectAddsUp({ elapsedNs, samples }: Batch): void {
  expect(samples.reduce((sum, sample) => sum + sample, 0n)).toBe(elapsedNs)
}

function peerOf({ child }: SamplerProgram): number {
  const [peer] = childrenOf(child.pid!)
  if (peer === undefined) throw new Error('it has no peer')
  return peer
}

describe('one at a time', () => {
  it.each(names.flatMap((name) => [1, 64, 8192].map((bytes) => [name, bytes] as const)))(
    '%s of %i bytes',
    async (name, bytes) => {
      const program = await floor(`${name} --bytes ${bytes}`).ready()
      for (const count of [1, 500]) {
        const batch = await program.batch(count)
        expectMeasured(batch)
        expectAddsUp(batch)
      }
      expect(await program.end()).toEqual({ code: 0, signal: null, stderr: '' })
    },
  )

  // More than socket buffers and rings hold, and no multiple of their pieces.
  it.each(names.filter((name) => !name.startsWith('mq')))('%s of 3 MB', async (name) => {
    const program = await floor(`${name} --bytes 3000001`).ready()
    expectMeasured(await program.batch(3))
    expect(await program.end()).toEqual({ code: 0, signal: null, stderr: '' })
  })

  it.each(names.filter((name) => name !== 'memcpy'))('%s --touch', async (name) => {
    const program = await floor(`${name} --bytes 4099 --touch`).ready()
    expectMeasured(await program.batch(50))
    expect((await program.end()).code).toBe(0)
  })

  it.each(names.filter((name) => name !== 'memcpy'))('%s of short answers', async (name) => {
    for (const sizes of ['--bytes 8000 --answer 1', '--bytes 8000 --answer 7999', '--bytes 64 --answer 64']) {
      const program = await floor(`${name} ${sizes}`).ready()
      expectMeasured(await program.batch(50))
      expect(await program.end()).toEqual({ code: 0, signal: null, stderr: '' })
    }
  })

  it.each(['verbs', 'verbs-sleep'])('%s, or why there is none', async (name) => {
    const hasDevice = existsSync('/sys/class/infiniband') && readdirSync('/sys/class/infiniband').length > 0
    const program = floor(`${name} --bytes 64`)
    if (hasDevice) {
      expectMeasured(await (await program.ready()).batch(50))
      expect((await program.end()).code).toBe(0)
    } else {
      const { code, stderr } = await program.end()
      expect(code).toBe(1)
      expect(stderr).toMatch(/RDMA device|libibverbs/)
    }
  })

  it.each(['ring', 'mq-spin', 'tcp-spin'])('%s polls on a single processor', async (name) => {
    const [processor] = /Cpus_allowed_list:\s*(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))!.slice(1)
    const program = await floor(`${name} --bytes 64 --pin ${processor},${processor}`).ready()
    expectMeasured(await program.batch(200))
    expect(/Cpus_allowed_list:\s*(\S+)/.exec(readFileSync(`/proc/${peerOf(program)}/status`, 'utf8'))![1]).toBe(
      processor,
    )
    expect((await program.end()).code).toBe(0)
  })
})

describe('several in flight', () => {
  it.each([
    ['ring', 64, 100],
    ['ring', 4096, 1024],
    ['mq', 64, 10],
    ...sockets.flatMap((name) => [
      [name, 64, 64] as const,
      [name, 64, 1024] as const,
      [name, 700_001, 5] as const, // more than the sockets hold in both directions
    ]),
  ] as const)('%s of %i bytes, %i at a time', async (name, bytes, inFlight) => {
    const count = bytes > 100_000 ? 20 : 2_000
    for (const also of name === 'ring' || name === 'mq' ? ['', ' --touch'] : ['', ' --touch', ' --batch']) {
      const program = await floor(`${name} --bytes ${bytes} --in-flight ${inFlight}${also}`).ready()
      expectMeasured(await program.batch(count))
      expectMeasured(await program.batch(1)) // fewer than are in flight
      expect(await program.end()).toEqual({ code: 0, signal: null, stderr: '' })
    }
  })
})

describe('wrong usage', () => {
  it.each([
    ['--bytes 64', /expected the name of one floor, received 0/],
    ['ring tcp --bytes 64', /expected the name of one floor, received 2/],
    ['rung --bytes 64', /there is no floor "rung"/],
    ['ring', /--bytes is missing/],
    ['ring --bytes 0', /--bytes is "0"; expected 1 \.\.\. 1073741824/],
    ['ring --bytes 1073741825', /--bytes is "1073741825"/],
    ['ring --bytes 64k', /--bytes is "64k"/],
    ['ring --bytes -1', /--bytes is "-1"/],
    ['mq --bytes 8193', /mq carries messages of at most 8192 bytes, not of 8193/],
    ['mq --bytes 64 --in-flight 11', /mq has at most 10 in flight, not 11/],
    ['futex --bytes 64 --in-flight 2', /futex has at most 1 in flight/],
    ['ring --bytes 32769 --in-flight 2', /several in flight of at most 32768 bytes/],
    ['tcp --bytes 64 --in-flight 1025', /--in-flight is "1025"/],
    ['tcp --bytes 64 --batch', /--batch needs --in-flight/],
    ['ring --bytes 64 --in-flight 2 --batch', /ring has no --batch/],
    ['memcpy --bytes 64 --touch', /memcpy has no other side/],
    ['tcp --bytes 64 --answer 0', /--answer is "0"/],
    ['tcp --bytes 64 --answer 65', /--answer is 65; it has at most the 64 bytes of the message/],
    ['tcp --bytes 64 --answer 1 --in-flight 2', /--answer is for one message at a time/],
    ['ring --bytes 64 --answer 1 --touch', /--answer is for one message at a time/],
    ['memcpy --bytes 64 --answer 1', /--answer is for one message at a time to another side/],
    ['tcp --bytes 64 --pin 0', /--pin is "0"; expected two processors/],
    ['tcp --bytes 64 --deadline-s 0', /--deadline-s is "0"/],
    ['tcp --bites 64', /unrecognized option '--bites'/],
  ])('praas-floor %s', async (line, reason) => {
    const { code, stderr } = await floor(line).end()
    expect(stderr).toMatch(reason)
    expect(code).toBe(2)
  })

  it.each(['0', '-1', 'x', '', '10000001', '99999999999999999999'])('%j operations', async (count) => {
    const program = await floor('memcpy --bytes 64').ready()
    program.child.stdin.write(`${count}\n`)
    const { code, stderr } = await program.ending
    expect(stderr).toContain(`"${count}" on stdin is no number of operations`)
    expect(code).toBe(2)
  })

  it('a processor that is not there', async () => {
    const { code, stderr } = await floor('tcp --bytes 64 --pin 1023,1023').end()
    expect(stderr).toMatch(/--pin: processor 1023: Invalid argument/)
    expect(code).toBe(1)
  })
})

describe('nothing is left', () => {
  it.each(names.filter((name) => name !== 'memcpy'))('%s, after the end of its input', async (name) => {
    const program = await floor(`${name} --bytes 64`).ready()
    const peer = peerOf(program)
    await program.batch(10)
    expectNoObjects(program)
    await program.end()
    await untilGone(peer)
  })

  it.each(names.filter((name) => name !== 'memcpy'))('%s, killed while it measures', async (name) => {
    const program = await floor(`${name} --bytes 4096`).ready()
    const peer = peerOf(program)
    await program.batch(10)
    program.child.stdin.write('10000000\n')
    program.child.kill('SIGKILL')
    expect((await program.ending).signal).toBe('SIGKILL')
    await untilGone(peer)
    expectNoObjects(program)
  })

  it.each(['ring', 'futex', 'mq', 'tcp'])('%s, killed between batches', async (name) => {
    const program = await floor(`${name} --bytes 64`).ready()
    const peer = peerOf(program)
    program.child.kill('SIGKILL')
    await program.ending
    await untilGone(peer)
  })

  it('not even what one that was killed while it set up a queue has left', async () => {
    const create = join(temporaryFolder(), 'create')
    const source = `#include <fcntl.h>
      #include <mqueue.h>
      #include <stddef.h>
      int main(int count, char** arguments) {
        return count == 2 && mq_open(arguments[1], O_RDWR | O_CREAT, 0600, NULL) != (mqd_t)-1 ? 0 : 1;
      }`
    execFileSync('cc', ['-x', 'c', '-', '-o', create, '-lrt'], { input: source })
    execFileSync(create, [queueName])
    const program = await floor('mq --bytes 64').ready()
    expectNoObjects(program)
    expectMeasured(await program.batch(10))
    expect((await program.end()).code).toBe(0)
  })
})

describe('the peer', () => {
  it.each(['ring', 'futex', 'eventfd', 'mq', 'tcp', 'memcpy'])('%s: sleeps between batches', async (name) => {
    const program = await floor(`${name} --bytes 64`).ready()
    await program.batch(100)
    for (const pid of [program.child.pid!, ...childrenOf(program.child.pid!)]) await untilAsleep(pid)
  })

  it.each(['ring', 'futex', 'mq', 'tcp'])('%s: its death ends the batch with a reason', async (name) => {
    const program = await floor(`${name} --bytes 64`).ready()
    const peer = peerOf(program)
    program.child.stdin.write('10000000\n')
    process.kill(peer, 'SIGKILL')
    const { code, stderr } = await program.ending
    // A socket may tell first.
    expect(stderr).toMatch(name === 'tcp' ? /reset by peer|the peer/ : /the peer process has ended/)
    expect(code).toBe(1)
  })

  it.each(['ring', 'futex', 'mq', 'tcp'])('%s: a batch that does not end meets its deadline', async (name) => {
    const program = await floor(`${name} --bytes 64 --deadline-s 1`).ready()
    const peer = peerOf(program)
    process.kill(peer, 'SIGSTOP')
    program.child.stdin.write('1000\n')
    const { code, stderr } = await program.ending
    expect(stderr).toMatch(/the batch did not end before its deadline/)
    expect(code).toBe(1)
    await untilGone(peer)
  })
})

/** Queues are unlinked as soon as they are open, and shared memory never has a name. */
function expectNoObjects({ child }: SamplerProgram): void {
  expect(readdirSync('/dev/shm').filter((name) => name.includes(`floor-${child.pid}`))).toEqual([])
  expect(native().unlinkMessageQueue(queueName)).toBe(false)
}

async function untilAsleep(pid: number): Promise<void> {
  const state = (): string | undefined => /^\d+ \(.*\) (\S)/s.exec(readFileSync(`/proc/${pid}/stat`, 'utf8'))?.[1]
  await expect.poll(state, { timeout: 30_000 }).toBe('S')
}
