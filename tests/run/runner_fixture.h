// The runner on the built-in model, opened with any plan: what the tests of the runner share.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "daemon/run/runner.h"
#include "daemon/run/session.h"
#include "storage/base/bytes.h"
#include "tests/storage/storage_test_util.h"

namespace thimble {

inline const std::string kModel =
    THIMBLE_SOURCE_DIR "/daemon/model/builtin/thimble-stories-q8_0.gguf";

using Logits = std::map<uint32_t, std::vector<float>>;  // by row

class Recorder final : public LogitsSink {
 public:
  Status OnLogits(uint32_t row, uint32_t first_token, std::span<const float> logits) override {
    std::vector<float>& to = rows[first_row + row];
    EXPECT_EQ(to.size(), first_token) << "tiles come in order";
    to.insert(to.end(), logits.begin(), logits.end());
    return {};
  }
  uint32_t first_row = 0;
  Logits rows;
};

inline std::vector<int32_t> SomeTokens(size_t n, int32_t step = 7) {
  std::vector<int32_t> tokens(n);
  for (size_t i = 0; i < n; ++i)
    tokens[i] = static_cast<int32_t>((3 + i * static_cast<size_t>(step)) % 1024);
  return tokens;
}

// A file that fails, or changes, when told to.
class FaultyFile final : public RandomAccessFile {
 public:
  struct Faults {
    bool fail_reads = false;
    bool changed = false;
  };
  FaultyFile(std::unique_ptr<RandomAccessFile> file, Faults* faults)
      : file_(std::move(file)), faults_(*faults) {}
  Status ReadAt(uint64_t offset, std::span<std::byte> out) override {
    if (faults_.fail_reads) return ErrnoError(EIO, "read " + path());
    return file_->ReadAt(offset, out);
  }
  Result<FileIdentity> Identity() override {
    Result<FileIdentity> identity = file_->Identity();
    if (identity.ok() && faults_.changed) identity->modified_ns += 1;
    return identity;
  }
  [[nodiscard]] const std::string& path() const override { return file_->path(); }

 private:
  std::unique_ptr<RandomAccessFile> file_;
  Faults& faults_;
};

class RunnerTest : public testing::Test {
 protected:
  void Open(const PlanOptions& plan, FaultyFile::Faults* faults = nullptr,
            uint64_t kv_quota_bytes = kGiB) {
    session_ = Session();
    env_.reset();
    Result<std::unique_ptr<LmdbEnv>> env =
        LmdbEnv::Open(directory_.path() + "/" + std::to_string(++n_),
                      {.map_bytes = 256 * kMiB, .sync_commits = false});
    ASSERT_TRUE(env.ok()) << env.status().ToString();
    env_ = std::move(env).value();
    Result<std::unique_ptr<RandomAccessFile>> file = OpenFile(kModel);
    ASSERT_TRUE(file.ok()) << file.status().ToString();
    if (faults != nullptr) *file = std::make_unique<FaultyFile>(std::move(*file), faults);
    SessionOptions options;
    options.plan = plan;
    options.kv_type = kv_type_;
    options.kv_quota_bytes = kv_quota_bytes;
    options.kv_ram_tokens = kv_ram_tokens_;
    Result<Session> session = Session::Open(std::move(*file), *env_, options);
    ASSERT_TRUE(session.ok()) << session.status().ToString();
    session_ = std::move(session).value();
  }

  KvSequence Sequence(const std::vector<int32_t>& tokens) {
    Result<KvSequence> sequence = session_.kv->OpenSequence(tokens, 512);
    EXPECT_TRUE(sequence.ok()) << sequence.status().ToString();
    return std::move(sequence).value();
  }

  void Begin(std::span<const PassItem> items) {
    const Status status = session_.runner->Begin(items);
    ASSERT_TRUE(status.ok()) << status.ToString();
  }
  // True where the pass is over.
  bool Step() {
    const Result<bool> done = session_.runner->Step();
    EXPECT_TRUE(done.ok()) << done.status().ToString();
    return !done.ok() || *done;
  }

  Status Pass(std::span<const PassItem> items) {
    THIMBLE_RETURN_IF_ERROR(session_.runner->Begin(items));
    for (bool done = false; !done;) {
      THIMBLE_ASSIGN_OR_RETURN(done, session_.runner->Step());
    }
    return {};
  }

  // The logits after every token, in chunks.
  Logits Run(const std::vector<int32_t>& tokens, size_t chunk) {
    KvSequence sequence = Sequence(tokens);
    Recorder recorder;
    for (size_t done = 0; done < tokens.size();) {
      const size_t n = std::min(chunk, tokens.size() - done);
      recorder.first_row = static_cast<uint32_t>(done);
      const PassItem item = {&sequence, std::span(tokens).subspan(done, n),
                             static_cast<uint32_t>(n), &recorder};
      const Status status = Pass({&item, 1});
      EXPECT_TRUE(status.ok()) << status.ToString();
      done += n;
    }
    EXPECT_TRUE(session_.kv->CloseSequence(sequence).ok());
    return std::move(recorder.rows);
  }

  // The logits after the last token of every chunk, and of the last 20 one by one.
  Logits RunOneLogit(const std::vector<int32_t>& tokens, size_t chunk) {
    KvSequence sequence = Sequence(tokens);
    Recorder recorder;
    for (size_t done = 0; done < tokens.size();) {
      const size_t left = tokens.size() - done;
      const size_t n = left <= 20 ? 1 : std::min(chunk, left - 20);
      recorder.first_row = static_cast<uint32_t>(done + n - 1);
      const PassItem item = {&sequence, std::span(tokens).subspan(done, n), 1, &recorder};
      const Status status = Pass({&item, 1});
      EXPECT_TRUE(status.ok()) << status.ToString();
      if (!status.ok()) break;
      done += n;
    }
    EXPECT_TRUE(session_.kv->CloseSequence(sequence).ok());
    return std::move(recorder.rows);
  }

  KvType kv_type_ = KvType::kF16;
  uint32_t kv_ram_tokens_ = 0;
  TempDir directory_;
  int n_ = 0;
  std::unique_ptr<LmdbEnv> env_;
  Session session_;
};

inline PlanOptions Options(Granularity granularity, uint64_t budget, uint32_t rows) {
  PlanOptions options;
  options.granularity = granularity;
  options.budget_bytes = budget;
  options.max_rows = rows;
  options.max_logit_rows = rows;
  return options;
}

}  // namespace thimble
