/**
 * Workers, hosts and the CLI are OS processes of their own and run the build, so it has to match the sources under test.
 * Runs once before all test files.
 */
import { execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'

export function setup(): void {
  const root = fileURLToPath(new URL('../..', import.meta.url))
  execFileSync('npm', ['run', '--silent', 'build:ts'], { cwd: root, stdio: 'inherit' })
}
