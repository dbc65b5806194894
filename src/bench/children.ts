/** Programs that do not outlive this one. */
import type { ChildProcess } from 'node:child_process'

const children = new Set<ChildProcess>()
process.on('exit', () => {
  // Not SIGKILL: mpirun would leave its ranks and their shared memory behind.
  for (const child of children) child.kill('SIGTERM')
})

/** Ends the child when this program ends before it. */
export function endsWithThis<Child extends ChildProcess>(child: Child): Child {
  children.add(child)
  child.once('exit', () => children.delete(child))
  return child
}
