import { defineFunction } from 'praas'

/** Greets, and counts in the state of the process how often it has done so. */
export const hello = defineFunction({ codec: 'json' }, (name: string, ctx) => {
  const greeted = ctx.state.array('greeted', Int32Array, 1)
  const count = Atomics.add(greeted, 0, 1) + 1
  return { greeting: `Hello ${name}`, process: ctx.processId, count }
})
