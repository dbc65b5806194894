/** Why tests that measure the memory of OS processes do not run, if so: AddressSanitizer takes memory of its own. */
export const sanitized =
  process.env['PRAAS_ADDON'] === undefined ? undefined : 'the addon is built for AddressSanitizer'
