/** How a suite tells how far it is. */

export interface Progress {
  /** So many steps more will come. */
  expect(steps: number): void
  /** A step has ended. */
  step(what: string): void
}

export const noProgress: Progress = { expect: () => undefined, step: () => undefined }
