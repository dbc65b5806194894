/* Looks for leaks at the end of a program. With PRAAS_NODE=0 it is part of the process host and the native worker,
 * where every leak counts. With PRAAS_NODE=1 it is preloaded into Node and whatever Node starts. Node loses memory of
 * its own and keeps pointers in V8's pages, where nobody looks, so leaks do not change its status: scripts/test-ts
 * takes from the report what the addon allocated. What a host or native worker defines itself wins over what is
 * preloaded. */
#define _GNU_SOURCE
#include <unistd.h>

__attribute__((visibility("default"))) const char* __asan_default_options(void);

static pid_t program;

#if PRAAS_NODE
#include <link.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

int __lsan_do_recoverable_leak_check(void);
void __sanitizer_set_death_callback(void (*callback)(void));

/* Each frame names its module, also where it has a line. Twelve frames reach from the allocator to Node; to name all
 * the modules below would take most of the time. */
const char* __asan_default_options(void) {
  return "detect_leaks=1:leak_check_at_exit=0:malloc_context_size=12:stack_trace_format='    #%n %p %F %L %M'";
}

static int is_addon(struct dl_phdr_info* module, size_t size, void* data) {
  const char* const name = strrchr(module->dlpi_name, '/');
  return name != NULL && strcmp(name, "/praas.node") == 0;
}

static jmp_buf without_answer;
static void give_up(void) { longjmp(without_answer, 1); }

/* Once in several hundred processes the tracer of LeakSanitizer crashes, and without ptrace it cannot look at all:
 * either would end the program with another status. A look cannot be repeated: what it has locked stays locked. */
static void look_for_leaks(void) {
  static int failed;
  if (failed || getpid() != program || dl_iterate_phdr(is_addon, NULL) == 0) return;
  __sanitizer_set_death_callback(give_up);
  if (setjmp(without_answer) == 0) {
    __lsan_do_recoverable_leak_check();
  } else {
    failed = 1;
  }
  __sanitizer_set_death_callback(NULL);
}

__attribute__((constructor)) static void begin(void) {
  program = getpid();
  atexit(look_for_leaks);
}

/* Where Node will be killed, this is loaded as an addon when the work is done. */
__attribute__((visibility("default"))) void* napi_register_module_v1(void* environment, void* exports) {
  look_for_leaks();
  return exports;
}
#else
#include <sys/syscall.h>

void __lsan_do_leak_check(void);

const char* __asan_default_options(void) { return "detect_leaks=1"; }

__attribute__((constructor)) static void remember_program(void) { program = getpid(); }

/* A worker ends here, and not where programs end, which is where leaks are looked for. Not so its forked children: what
 * other threads of the worker hold would seem to be lost in them. */
__attribute__((visibility("default"))) void _exit(int status) {
  if (status == 0 && getpid() == program) __lsan_do_leak_check();
  for (;;) syscall(SYS_exit_group, status);
}
#endif
