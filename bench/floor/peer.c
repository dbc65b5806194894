#define _GNU_SOURCE
#include "peer.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "exchange.h"

static pid_t peer = -1;
static int orders = -1; /* how many requests are to be answered next; to the client once, when the peer is set up */

static void pin(const struct options* options, enum side side) {
  const int cpu = options->cpu[side];
  if (cpu < 0) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET((size_t)cpu, &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0) fail("--pin: processor %d", cpu);
}

static void become(const struct floor* floor, const struct options* options, enum side side) {
  pin(options, side);
  if (floor->become != NULL) floor->become(side);
}

static _Noreturn void answer(const struct floor* floor, const struct options* options, pid_t client) {
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) fail("prctl of the peer");
  if (getppid() != client) _exit(0); /* it had ended before */
  /* Whoever reads the results sees their end when the client ends. */
  close(STDIN_FILENO);
  close(STDOUT_FILENO);
  become(floor, options, kServer);
  uint64_t count = 0;
  if (send(orders, &count, sizeof count, MSG_NOSIGNAL) < 0) _exit(0);
  while (read(orders, &count, sizeof count) == (ssize_t)sizeof count) exchange_serve(floor, options, count);
  _exit(0);
}

static void on_peer_end(int signal_number) {
  (void)signal_number;
  static const char text[] = "praas-floor: the peer process has ended\n";
  if (write(STDERR_FILENO, text, sizeof text - 1) < 0) _exit(1);
  _exit(1);
}

void peer_start(const struct floor* floor, const struct options* options) {
  if (floor->alone) {
    become(floor, options, kClient);
    return;
  }
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) fail("socketpair for the peer");
  const pid_t client = getpid();
  struct sigaction action = {.sa_handler = on_peer_end, .sa_flags = SA_NOCLDSTOP | SA_RESTART};
  if (sigaction(SIGCHLD, &action, NULL) != 0) fail("sigaction");
  peer = fork();
  if (peer < 0) fail("fork of the peer");
  close(ends[peer == 0 ? 0 : 1]);
  orders = ends[peer == 0 ? 1 : 0];
  if (peer == 0) answer(floor, options, client);
  become(floor, options, kClient);
  /* Only now is it sure to end with this process. */
  uint64_t set_up;
  if (recv(orders, &set_up, sizeof set_up, 0) != (ssize_t)sizeof set_up) on_peer_end(SIGCHLD);
}

void peer_serve(uint64_t count) {
  if (peer < 0) return;
  if (send(orders, &count, sizeof count, MSG_NOSIGNAL) != (ssize_t)sizeof count) fail("send to the peer");
}

void peer_stop(void) {
  if (peer < 0) return;
  signal(SIGCHLD, SIG_DFL);
  kill(peer, SIGKILL); /* between batches it holds nothing */
  while (waitpid(peer, NULL, 0) < 0 && errno == EINTR) {
  }
}
