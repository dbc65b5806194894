#include "napi/client_buffers.h"

#include <utility>

#include "napi/buffers.h"

namespace praas::napi {

ClientBuffers::ClientBuffers(napi_env env, std::shared_ptr<ConnectionCore> core)
    : env_(env), core_(std::move(core)), buffers_(std::make_shared<Map>()) {}

void ClientBuffers::GiveBack(napi_env env, ConnectionCore& core, Map& buffers, Allocated& allocated) noexcept {
  if (std::exchange(allocated.released, true)) return;
  if (allocated.array_buffer != nullptr) {
    static_cast<void>(napi_delete_reference(env, std::exchange(allocated.array_buffer, nullptr)));
  }
  if (!core.closed) core.connection->Release(allocated.buffer);
  buffers.erase(allocated.buffer.data);  // may free `allocated`
}

Result<napi_value> ClientBuffers::Allocate(uint64_t bytes) {
  Result<transport::Buffer> buffer = core_->connection->Allocate(bytes);
  if (!buffer.ok()) return buffer.status();
  auto allocated = std::make_shared<Allocated>(Allocated{.buffer = *buffer});
  // Views on memory that is still mapped are all that a dropped buffer leaves behind: the memory goes back from here.
  Result<napi_value> array_buffer = ExternalBuffer(
      env_, {buffer->data, static_cast<size_t>(bytes)},
      [env = env_, core = core_, buffers = buffers_, allocated] { GiveBack(env, *core, *buffers, *allocated); });
  if (!array_buffer.ok()) {
    core_->connection->Release(*buffer);
    return array_buffer.status();
  }
  (*buffers_)[buffer->data] = allocated;
  napi_value view = ViewOf(env_, *array_buffer, 0, static_cast<size_t>(bytes));
  if (view == nullptr || napi_create_reference(env_, *array_buffer, 0, &allocated->array_buffer) != napi_ok) {
    return Status(Code::kInternal, "the JavaScript engine could not make a view");
  }
  return view;
}

Status ClientBuffers::Release(const std::byte* begin) {
  const auto found = buffers_->find(begin);
  if (found == buffers_->end())
    return {Code::kArgumentInvalid, "buffer is not the start of one that allocate() returned"};
  const std::shared_ptr<Allocated> allocated = found->second;
  if (allocated->in_use > 0) {
    return {Code::kArgumentInvalid, "buffer is used by " + std::to_string(allocated->in_use) + " call(s) in flight"};
  }
  Detach(env_, allocated->array_buffer);
  GiveBack(env_, *core_, *buffers_, *allocated);
  return Status::Ok();
}

std::shared_ptr<ClientBuffers::Allocated> ClientBuffers::Find(std::span<const std::byte> bytes) const {
  if (buffers_->empty() || bytes.empty()) return nullptr;
  auto after = buffers_->upper_bound(bytes.data());
  if (after == buffers_->begin()) return nullptr;
  const std::shared_ptr<Allocated>& candidate = std::prev(after)->second;
  const std::byte* const end = candidate->buffer.data + candidate->buffer.bytes;
  return bytes.data() + bytes.size() <= end ? candidate : nullptr;
}

napi_value ClientBuffers::View(const Allocated& buffer, std::span<const std::byte> bytes) const noexcept {
  napi_value array_buffer = nullptr;
  if (buffer.array_buffer == nullptr || napi_get_reference_value(env_, buffer.array_buffer, &array_buffer) != napi_ok ||
      array_buffer == nullptr) {
    return nullptr;
  }
  return ViewOf(env_, array_buffer, static_cast<size_t>(bytes.data() - buffer.buffer.data), bytes.size());
}

void ClientBuffers::DetachAll() noexcept {
  for (const auto& [begin, allocated] : *buffers_) Detach(env_, allocated->array_buffer);
}

}  // namespace praas::napi
