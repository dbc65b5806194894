/** What `praas doctor` says about one thing. */
export interface Finding {
  readonly what: string
  readonly state: 'ok' | 'note' | 'bad'
  readonly found: string
  readonly remedy?: string
}
