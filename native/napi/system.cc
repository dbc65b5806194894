#include "napi/system.h"

#include <fcntl.h>
#include <sys/resource.h>

#include <cerrno>
#include <limits>
#include <string>

#include "base/build.h"
#include "base/process_id.h"
#include "mqueue/message_queue.h"
#include "napi/args.h"
#include "napi/errors.h"
#include "shm/shared_memory.h"
#include "state/inspect.h"
#include "verbs/survey.h"

namespace praas::napi {

namespace {

Napi::Value Capabilities(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Napi::Object object = Napi::Object::New(env);
  object.Set("version", PRAAS_VERSION);
  object.Set("napi", static_cast<double>(NAPI_VERSION));
  object.Set("debug", kDebugBuild);
  Napi::Array transports = Napi::Array::New(env);
  Napi::Object missing = Napi::Object::New(env);
  const Status verbs = verbs::Usable();
  transports[transports.Length()] = "shm";
  if (verbs.ok()) {
    transports[transports.Length()] = "verbs";
  } else {
    missing.Set("verbs", verbs.message());
  }
  transports[transports.Length()] = "tcp";
  object.Set("transports", transports);
  object.Set("missing", missing);
  return object;
}

Napi::Value SurveyRdma(const Napi::CallbackInfo& info) { return Napi::String::New(info.Env(), verbs::SurveyJson()); }

Napi::Value InspectSegment(const Napi::CallbackInfo& info) {
  const std::string name = ReadText(info.Env(), info[0], "name");
  const std::string process_id = ReadText(info.Env(), info[1], "processId");
  return Napi::String::New(info.Env(), OrThrow(info.Env(), state::InspectJson(name, process_id)));
}

/// true: it was there.
Napi::Value Removed(Napi::Env env, const Status& status) {
  if (!status.ok() && status.sys_errno() != ENOENT) throw ToJsError(env, status);
  return Napi::Boolean::New(env, status.ok());
}

Napi::Value UnlinkSharedMemory(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::string name = ReadText(env, info[0], "name");
  if (!shm::IsValidName(name)) throw OutOfRange(env, "name", "a slash and 1 to 254 bytes without one");
  // Opened first, because the name of somebody else's object must not go by mistake.
  const Result<shm::SharedMemory> object = shm::Open(name, shm::OpenMode::kReadOnly);
  if (!object.ok()) return Removed(env, object.status());
  return Removed(env, shm::Unlink(name));
}

Napi::Value UnlinkMessageQueue(const Napi::CallbackInfo& info) {
  const std::string name = ReadText(info.Env(), info[0], "name");
  const Result<mqueue::MessageQueue> queue = mqueue::MessageQueue::Open(name);
  if (!queue.ok()) return Removed(info.Env(), queue.status());
  return Removed(info.Env(), mqueue::MessageQueue::Unlink(name));
}

/// Whether a live host holds the segment: hosts keep an open-file-description lock on it.
Napi::Value SegmentLocked(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::string name = ReadText(env, info[0], "name");
  const shm::SharedMemory object = OrThrow(env, shm::Open(name, shm::OpenMode::kReadOnly));
  struct flock lock = {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  if (fcntl(object.fd.get(), F_OFD_GETLK, &lock) != 0) {
    throw ToJsError(env, Status::System("fcntl F_OFD_GETLK " + name));
  }
  return Napi::Boolean::New(env, lock.l_type != F_UNLCK);
}

double LimitValue(rlim_t value) noexcept {
  return value == RLIM_INFINITY ? std::numeric_limits<double>::infinity() : static_cast<double>(value);
}

rlimit LimitOf(Napi::Env env, int resource, const char* name) {
  rlimit limit = {};
  if (getrlimit(static_cast<__rlimit_resource>(resource), &limit) != 0) {
    throw ToJsError(env, Status::System(std::string("getrlimit ") + name));
  }
  return limit;
}

Napi::Value Limits(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const rlimit files = LimitOf(env, RLIMIT_NOFILE, "RLIMIT_NOFILE");
  Napi::Object object = Napi::Object::New(env);
  object.Set("memlockBytes", LimitValue(LimitOf(env, RLIMIT_MEMLOCK, "RLIMIT_MEMLOCK").rlim_cur));
  object.Set("msgqueueBytes", LimitValue(LimitOf(env, RLIMIT_MSGQUEUE, "RLIMIT_MSGQUEUE").rlim_cur));
  object.Set("openFiles", LimitValue(files.rlim_cur));
  object.Set("openFilesHard", LimitValue(files.rlim_max));
  return object;
}

Napi::Value RaiseOpenFiles(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  rlimit files = LimitOf(env, RLIMIT_NOFILE, "RLIMIT_NOFILE");
  files.rlim_cur = files.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &files) != 0) throw ToJsError(env, Status::System("setrlimit RLIMIT_NOFILE"));
  return Napi::Number::New(env, LimitValue(files.rlim_cur));
}

Napi::Value ProcessStartTime(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto pid = static_cast<pid_t>(ReadInteger(env, info[0], "pid", 1, std::numeric_limits<pid_t>::max()));
  const std::optional<ProcessId> process = ProcessId::Of(pid);
  if (!process) return env.Undefined();
  return Napi::String::New(env, std::to_string(process->start_time));
}

}  // namespace

void DefineSystem(Napi::Env env, Napi::Object exports) {
  exports.Set("capabilities", Napi::Function::New<Capabilities>(env, "capabilities"));
  exports.Set("surveyRdma", Napi::Function::New<SurveyRdma>(env, "surveyRdma"));
  exports.Set("inspectSegment", Napi::Function::New<InspectSegment>(env, "inspectSegment"));
  exports.Set("unlinkSharedMemory", Napi::Function::New<UnlinkSharedMemory>(env, "unlinkSharedMemory"));
  exports.Set("unlinkMessageQueue", Napi::Function::New<UnlinkMessageQueue>(env, "unlinkMessageQueue"));
  exports.Set("segmentLocked", Napi::Function::New<SegmentLocked>(env, "segmentLocked"));
  exports.Set("limits", Napi::Function::New<Limits>(env, "limits"));
  exports.Set("raiseOpenFiles", Napi::Function::New<RaiseOpenFiles>(env, "raiseOpenFiles"));
  exports.Set("processStartTime", Napi::Function::New<ProcessStartTime>(env, "processStartTime"));
}

}  // namespace praas::napi
