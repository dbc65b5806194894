#include "host/process.h"

#include <unistd.h>

#include "base/clock.h"
#include "base/process_id.h"
#include "host/repair.h"
#include "mqueue/message_queue.h"

namespace praas::host {
namespace {

constexpr uint64_t kRepairNs = 5'000'000'000;
/// A host that was killed between vfork and exec of a worker leaves a child that holds its lock until it is scheduled.
constexpr uint64_t kRemainsNs = 2'000'000'000;

}  // namespace

Result<std::unique_ptr<Process>> Process::Open(const Assignment& assignment, uint64_t deadline_ns) {
  Result<ObjectsFile> objects = ObjectsFile::Create(assignment.objects);
  if (!objects) return objects.status();
  std::unique_ptr<Process> process(new Process(assignment, std::move(*objects)));
  if (Status status = process->OpenMemory(deadline_ns); !status.ok()) return status;
  return process;
}

Status Process::OpenMemory(uint64_t deadline_ns) {
  if (Status status = objects.Add("shm", assignment.segment); !status.ok()) return status;
  Result<segment::Segment> opened = segment::Segment::CreateOrAttach({.name = assignment.segment,
                                                                      .process_id = assignment.process,
                                                                      .memory_bytes = assignment.memory_bytes,
                                                                      .pool_bytes = assignment.pool_bytes,
                                                                      .calls = assignment.calls,
                                                                      .format = state::StateStore::Format,
                                                                      .lock_wait_ns = kRemainsNs,
                                                                      .must_exist = assignment.restarted});
  if (!opened) return opened.status();
  segment = std::make_unique<segment::Segment>(std::move(*opened));
  const bool attached = segment->attached();
  if (attached) {
    if (Status status = EndFormerWorkers(*segment, deadline_ns); !status.ok()) return status;
    ForgetFormerHost(*segment);
  }

  data = std::make_unique<segment::Arena>(segment::Arena::Data(*segment, dispatch::kHostParticipant));
  Result<publication::Area> published = publication::Area::Create(assignment.publication_bytes);
  if (!published) return published.status().WithContext("publication area");
  area = std::move(*published);
  state = std::make_unique<state::StateStore>(*segment, *data, dispatch::kHostParticipant, &*area);
  if (attached) {
    if (Status status = data->Recover(); !status.ok()) return status.WithContext("data arena");
    if (Status status = state->RepairAfterHost(DeadlineIn(kRepairNs)); !status.ok()) return status.WithContext("state");
  }

  for (const std::string& queue : Queues()) {
    if (Status status = objects.Add("mq", queue); !status.ok()) return status;
  }
  Result<std::unique_ptr<dispatch::Doorbells>> bells =
      dispatch::Doorbells::Create(*segment, assignment.queue, assignment.lanes(), &doorbell_reason);
  if (!bells) return bells.status();
  doorbells = std::move(*bells);

  Result<std::unique_ptr<window::Pool>> memory = window::Pool::Create(*segment);
  if (!memory) return memory.status().WithContext("pool window");
  pool = std::move(*memory);

  dispatcher = std::make_unique<dispatch::Dispatcher>(*segment, *doorbells, dispatch::kHostParticipant);
  if (attached) dispatcher->ResetTable();
  if (Result<int> own = wakers.Fd(dispatch::kHostParticipant); !own) return own.status();
  dispatcher->SetWaker([this](uint16_t participant) { wakers.Signal(participant); });
  state->OnGrant([this](uint16_t participant) { dispatcher->Notify(participant, dispatch::kNoticeLock); });
  RegisterHost();
  return Status::Ok();
}

std::vector<std::string> Process::Queues() const {
  std::vector<std::string> queues;
  for (const dispatch::Lane lane : {dispatch::Lane::kNode, dispatch::Lane::kNative}) {
    if (assignment.workers_of(lane) > 0) queues.push_back(dispatch::Doorbells::QueueName(assignment.queue, lane));
  }
  return queues;
}

void Process::RegisterHost() {
  const ProcessId self = ProcessId::Self();
  dispatch::Participant& host = segment->participant(dispatch::kHostParticipant);
  host.kind = static_cast<uint32_t>(dispatch::ParticipantKind::kHost);
  host.pid.store(self.pid);
  host.pid_start_time = self.start_time;
  host.started_wall_ns = WallNs();
  host.generation.fetch_add(1);
  host.state.store(static_cast<uint32_t>(dispatch::ParticipantState::kReady));
}

void Process::LeaveInOrder() {
  // A queue of a process that is gone would go on eating the user's quota.
  if (doorbells->kind() == dispatch::DoorbellKind::kMessageQueue) {
    for (const std::string& queue : Queues()) (void)mqueue::MessageQueue::Unlink(queue);
  }
  if (!assignment.socket.empty()) ::unlink(assignment.socket.c_str());
  dispatch::Participant& host = segment->participant(dispatch::kHostParticipant);
  host.state.store(static_cast<uint32_t>(dispatch::ParticipantState::kFree));
  host.pid.store(0);
  header().clean_shutdown.store(1);
}

}  // namespace praas::host
