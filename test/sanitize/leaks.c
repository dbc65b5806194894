/* Whether AddressSanitizer looks for leaks at the end of a program: PRAAS_DETECT_LEAKS, 0 or 1. Preloaded as 0 into
 * Node and whatever it starts, whose leaks are not ours; as 1 in the process host and the native worker, whose own
 * definition wins. */
#define TEXT_OF(value) #value
#define OPTION(value) "detect_leaks=" TEXT_OF(value)

__attribute__((visibility("default"))) const char* __asan_default_options(void) { return OPTION(PRAAS_DETECT_LEAKS); }
