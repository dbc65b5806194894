#include <algorithm>
#include <array>
#include <cstring>

#include "state/store_impl.h"

/// Shared mutable arrays: a block that keeps its place for as long as the key exists.
namespace praas::state {
namespace {

/// Bytes of one element by ElementType; 0: no such type.
constexpr std::array<uint8_t, 12> kElementBytes = {0, 1, 1, 1, 2, 2, 4, 4, 4, 8, 8, 8};

}  // namespace

Result<Pinned> StateStore::Array(std::string_view name, uint32_t element_type, uint64_t bytes, uint64_t deadline_ns) {
  Result<Impl::Key> key = impl_->MakeKey(name);
  if (!key.ok()) return key.status();
  const uint64_t element_bytes = element_type < kElementBytes.size() ? kElementBytes[element_type] : 0;
  if (element_bytes == 0) {
    return Status(Code::kArgumentInvalid, "element type " + std::to_string(element_type) + " is not known");
  }
  if (bytes == 0 || bytes % element_bytes != 0 || bytes > kValueBytesMask) {
    return Status(Code::kArgumentInvalid, "an array of " + std::to_string(bytes) +
                                              " bytes cannot be made of elements of " + std::to_string(element_bytes) +
                                              " bytes");
  }

  Impl::Draft draft(*impl_);
  for (;;) {
    Impl::Found found;
    uint32_t pinned = kNone;
    Pinned description{};
    bool created = false;
    {
      Result<Impl::Section> section = impl_->EnterToWrite(*key, &found, deadline_ns);
      if (!section.ok()) return section.status();
      if (found && (found.ref.kind != KeyKind::kArray || found.ref.element_type != element_type)) {
        return Status(Code::kStateType, "state key \"" + std::string(name) + "\" holds " +
                                            (found.ref.kind == KeyKind::kArray ? "an array of another element type"
                                                                               : "a value, not an array"));
      }
      if (found && found.bytes() != bytes) {
        return Status(Code::kStateRange, "array \"" + std::string(name) + "\" has " + std::to_string(found.bytes()) +
                                             " bytes, not " + std::to_string(bytes));
      }
      if (!found && draft.capacity() >= bytes) {
        const ValueRef ref{.kind = KeyKind::kArray, .element_type = static_cast<uint8_t>(element_type)};
        Result<uint64_t> version = impl_->Publish(*key, found, draft, ref, bytes, deadline_ns);
        if (!version.ok()) return version.status();
        found = impl_->Find(*key);
        created = true;
      }
      if (found) pinned = impl_->pins.Pin(found.ref.block);
      if (pinned != kNone) description = impl_->Describe(pinned, found);
    }
    if (created) impl_->AfterInsertion();
    if (pinned != kNone) return description;
    if (found) {
      if (Status status = impl_->pins.Grow(); !status.ok()) return status;
    } else {
      if (Status status = draft.Allocate(bytes, 0, deadline_ns); !status.ok()) return status;
      std::memset(draft.data(), 0, bytes);
    }
  }
}

}  // namespace praas::state
