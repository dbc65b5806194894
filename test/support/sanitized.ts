/** Why tests of what OS processes take do not run, if so: the sanitizers take memory and descriptors of their own. */
export const sanitized =
  process.env['PRAAS_ADDON'] === undefined ? undefined : 'the addon is built for AddressSanitizer'
