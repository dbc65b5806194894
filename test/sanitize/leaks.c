/* Whether AddressSanitizer looks for leaks at the end of a program: PRAAS_DETECT_LEAKS, 0 or 1. Preloaded as 0 into
 * Node and whatever it starts, whose leaks are not ours; as 1 in the process host and the native worker, whose own
 * definition wins. */
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <unistd.h>

#define TEXT_OF(value) #value
#define OPTION(value) "detect_leaks=" TEXT_OF(value)

__attribute__((visibility("default"))) const char* __asan_default_options(void) { return OPTION(PRAAS_DETECT_LEAKS); }

#if PRAAS_DETECT_LEAKS
void __lsan_do_leak_check(void);

static pid_t program;
__attribute__((constructor)) static void remember_program(void) { program = getpid(); }

/* A worker ends here, and not where programs end, which is where leaks are looked for. Not so its forked children: what
 * other threads of the worker hold would seem to be lost in them. */
__attribute__((visibility("default"))) void _exit(int status) {
  if (status == 0 && getpid() == program) __lsan_do_leak_check();
  for (;;) syscall(SYS_exit_group, status);
}
#endif
