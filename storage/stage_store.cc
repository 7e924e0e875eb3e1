#include "storage/stage_store.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "storage/encoding.h"

namespace thimble {
namespace {

// Database "stage_outputs": [value u32 BE][part u32 BE][chunk u32 BE] -> up to kChunkBytes raw
// bytes. Never change this name or the key.
constexpr const char* kDatabase = "stage_outputs";
constexpr size_t kKeyBytes = 12;

Key ChunkKey(uint32_t value, uint32_t part, uint64_t chunk) {
  return Key().U32(value).U32(part).U32(static_cast<uint32_t>(chunk));
}

std::string Name(uint32_t value, uint32_t part, uint64_t offset) {
  return "stage output " + std::to_string(value) + " part " + std::to_string(part) + " at byte " +
         std::to_string(offset);
}

Status CheckExtent(const char* operation, uint32_t value, uint32_t part, uint64_t offset,
                   uint64_t bytes) {
  // 2^32 chunks of 64 KiB; what `bytes` can add is bounded by the address space.
  if (offset % StageStore::kChunkBytes == 0 && offset < (uint64_t{1} << 47) &&
      bytes < (uint64_t{1} << 47)) {
    return {};
  }
  return InvalidArgumentError(std::string(operation) + " " + Name(value, part, offset) +
                              ": not a multiple of 65536 below 2^47");
}

}  // namespace

Result<std::unique_ptr<StageStore>> StageStore::Open(LmdbEnv& cache) {
  std::unique_ptr<StageStore> store(new StageStore(cache));
  THIMBLE_ASSIGN_OR_RETURN(store->db_, cache.OpenDatabase(kDatabase));
  const MDB_dbi db = store->db_;
  THIMBLE_RETURN_IF_ERROR(cache.Remove([db](LmdbTxn& txn) { return txn.Clear(db); }));
  return store;
}

Status StageStore::Write(uint32_t value, uint32_t part, std::span<const std::byte> bytes,
                         uint64_t offset) {
  THIMBLE_RETURN_IF_ERROR(CheckExtent("write", value, part, offset, bytes.size()));
  for (size_t done = 0; done < bytes.size(); done += kChunkBytes) {
    const auto chunk = bytes.subspan(done, std::min(kChunkBytes, bytes.size() - done));
    const uint64_t index = (offset + done) / kChunkBytes;
    THIMBLE_ASSIGN_OR_RETURN(LmdbTxn txn, env_.BeginWrite());
    THIMBLE_RETURN_IF_ERROR(txn.Put(db_, ChunkKey(value, part, index).bytes(), chunk));
    // A short chunk is the value's last one: what an earlier, longer value left behind it goes.
    bool stale = chunk.size() < kChunkBytes;
    for (uint64_t next = index + 1; stale; ++next) {
      THIMBLE_ASSIGN_OR_RETURN(stale, txn.Delete(db_, ChunkKey(value, part, next).bytes()));
    }
    THIMBLE_RETURN_IF_ERROR(txn.Commit());
    bytes_written_ += chunk.size();
  }
  return {};
}

Status StageStore::Read(uint32_t value, uint32_t part, std::span<std::byte> out, uint64_t offset) {
  THIMBLE_RETURN_IF_ERROR(CheckExtent("read", value, part, offset, out.size()));
  THIMBLE_ASSIGN_OR_RETURN(const LmdbTxn txn, env_.BeginRead());
  size_t done = 0;
  const auto visit = [&](Bytes key, Bytes chunk) {
    const Key expected = ChunkKey(value, part, (offset + done) / kChunkBytes);
    if (key.size() != kKeyBytes || !std::ranges::equal(key, expected.bytes())) return false;
    const size_t wanted = std::min(kChunkBytes, out.size() - done);
    if (chunk.size() < wanted) return false;
    std::memcpy(out.data() + done, chunk.data(), wanted);
    done += wanted;
    return done < out.size();
  };
  if (out.empty()) return {};
  const Key first = ChunkKey(value, part, offset / kChunkBytes);
  THIMBLE_RETURN_IF_ERROR(txn.Scan(db_, first.bytes(), visit));
  if (done == out.size()) return {};
  THIMBLE_ASSIGN_OR_RETURN(const auto begun, txn.Get(db_, first.bytes()));
  const std::string what = "read " + Name(value, part, offset);
  if (!begun) return NotFoundError(what + ": nothing was written");
  return DataLossError(what + ": " + std::to_string(out.size() - done) + " of " +
                       std::to_string(out.size()) + " bytes are missing");
}

}  // namespace thimble
