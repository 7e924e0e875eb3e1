// The scheduler's state, shared by the files that make it up: scheduler.cc (admission, clients),
// scheduler_queue.cc (those that wait), scheduler_pass.cc (passes and their tokens),
// scheduler_draft.cc (speculation), scheduler_end.cc (how requests end and are told),
// scheduler_journal.cc (what the journal is given), scheduler_resume.cc (taking it up again).
// Called by: these alone.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "daemon/queue/fair_order.h"
#include "daemon/queue/pass_composer.h"
#include "daemon/queue/request_record.h"
#include "daemon/queue/scheduler.h"
#include "daemon/queue/speculation.h"
#include "daemon/queue/text_stream.h"
#include "daemon/queue/wait_estimate.h"
#include "daemon/run/sampler_rows.h"

namespace thimble {

// A request in memory.
//
//   kQueued -> kActive -> kEnded (only while its sink is behind) -> kGone (until the call returns)
//      ^----------' its client does not read, and another request waits for the slot
struct LiveRequest {
  enum class State { kQueued, kActive, kEnded, kGone };

  // `its_options` have no prompt.
  LiveRequest(uint64_t its_number, GenerationRequest its_options, std::vector<TokenId> prompt);
  LiveRequest(const LiveRequest&) = delete;
  LiveRequest& operator=(const LiveRequest&) = delete;

  [[nodiscard]] uint32_t generated() const {
    return static_cast<uint32_t>(log_probabilities.size());
  }
  [[nodiscard]] bool sink_is_behind() const { return sink != nullptr && told < generated(); }
  [[nodiscard]] bool sink_is_full() const { return sink != nullptr && !sink->CanAccept(); }
  // Whether a pass may compute something for it.
  [[nodiscard]] bool runnable() const {
    return state == State::kActive && !sink_is_behind() && !sink_is_full();
  }
  // Whether its end is still to come.
  [[nodiscard]] bool takes_tokens() const {
    return state == State::kQueued || state == State::kActive;
  }
  // Whether it may have a slot. One that gave its slot up waits until its client reads again.
  [[nodiscard]] bool startable() const {
    return state == State::kQueued && !(told_started && sink_is_full());
  }

  const uint64_t number;
  const GenerationRequest options;  // without the prompt
  bool detach = options.detach;     // as its newest client asks
  State state = State::kQueued;
  uint32_t n_prompt = 0;
  std::vector<int32_t> tokens;  // prompt, then generated; capacity reserved when it becomes active
  std::vector<float> log_probabilities;  // of the generated tokens
  uint32_t journaled = 0;                // tokens of them that the journal has
  StopMatcher stop;                      // has seen the generated tokens

  // Its client.
  uint64_t client = 0;
  RequestSink* sink = nullptr;
  uint32_t told_position = 0;
  bool told_started = false;
  TextStream text;    // of the tokens it has been told
  uint32_t told = 0;  // tokens

  // While active.
  uint32_t slot = 0;
  KvSequence sequence;
  std::optional<SamplerRows> sampler;
  Guess guess;  // of what follows `tokens`
  GuessRecord guesses;
  DraftTree drafts;                 // of the running pass
  uint32_t chain_until = 0;         // tokens: until it has so many its drafts are no tree
  std::vector<int32_t> row_tokens;  // the last token and its drafts; capacity reserved

  double accepted_at = 0;
  double started_at = -1;
  double activated_at = -1;  // later than started_at where it gave its slot up in between
  double first_token_at = -1;
  double last_token_at = -1;
  RequestResult result;  // kEnded
  uint32_t cached = 0;
  bool suspect = false;           // was in a pass that failed: goes on in a pass of its own
  bool forget_when_told = false;  // kEnded with an error kept for this client
};

class SchedulerImpl final : public Scheduler {
 public:
  SchedulerImpl(const SchedulerOptions& options, const Model& model, Tokenizer& tokenizer,
                Runner& runner, KvCache& kv, StageStore& store, Journal& journal);
  ~SchedulerImpl() override;
  SchedulerImpl(const SchedulerImpl&) = delete;
  SchedulerImpl& operator=(const SchedulerImpl&) = delete;

  Status Resume();

  Result<uint64_t> Submit(GenerationRequest request, RequestSink* sink) override;
  void ClientGone(uint64_t number) override;
  void Cancel(uint64_t number) override;
  void Suspend(const std::string& why) override;
  [[nodiscard]] bool HasWork() const override;
  Status Step() override;
  [[nodiscard]] SchedulerStatus status() const override;
  [[nodiscard]] uint32_t n_active() const override { return Count(State::kActive); }
  [[nodiscard]] double EstimatedWaitSeconds() override;
  [[nodiscard]] double RetryAfterSeconds() override;

 private:
  using State = LiveRequest::State;

  // scheduler.cc
  [[nodiscard]] LiveRequest* Find(uint64_t number);
  [[nodiscard]] uint32_t Count(State state) const;
  void Activate(LiveRequest& request);
  void Forget();  // drops kGone

  // scheduler_queue.cc
  // Those that wait, in the order of their turns; fills active_work_ too.
  const std::vector<LiveRequest*>& QueueOrder();
  [[nodiscard]] WaitEstimate::Work WorkLeft(const LiveRequest& request) const;
  // As WaitEstimate::Waits, for QueueOrder.
  const std::vector<double>& Waits();
  [[nodiscard]] Status CheckRoom(uint64_t client) const;
  void Admit();
  // Whether it holds its slot for nothing: its client has not read for a while.
  [[nodiscard]] bool Stalled(const LiveRequest& request) const;
  // Frees a slot held for nothing; false where there is none.
  bool GiveUpASlot();
  // To those for whom it has changed.
  void TellQueuePositions();

  // scheduler_resume.cc
  Status ResumeOne(uint64_t number);
  Result<uint64_t> Attach(uint64_t number, const GenerationRequest& request, RequestSink* sink);
  Status AttachEnded(const Journal::Entry& entry, const GenerationRequest& request,
                     RequestSink* sink);
  Status TakeTokens(LiveRequest& request, const std::vector<int32_t>& ints);

  // scheduler_pass.cc
  void BeginPass();
  void PassFailed(const Status& status);
  void PassDone();
  // What a request has got from its rows: the last `n_tokens` of its tokens, and its end.
  struct Emission {
    LiveRequest* request = nullptr;
    uint32_t n_tokens = 0;
    std::optional<FinishReason> end;
  };
  // nullopt: nothing, or its end by failure.
  std::optional<Emission> TakeRows(LiveRequest& request, const PassItem& item);
  std::optional<Emission> TakeChoices(LiveRequest& request,
                                      std::span<const Sampler::Choice> choices);
  void Emit(const Emission& emission, double now);
  void LeavePass(const LiveRequest& request);
  // The reason to end after its last token, if there is one.
  [[nodiscard]] std::optional<FinishReason> EndAfter(const LiveRequest& request) const;

  // scheduler_draft.cc
  // Gives the requests of the composed pass their drafts, as they are thought to pay; none where
  // they are not `wanted`.
  void AddDrafts(bool wanted);
  // Counts its drafts, and learns how good its guesses were, before it takes the tokens drawn.
  void ObserveDrafts(LiveRequest& request, std::span<const Sampler::Choice> choices);
  // What the model thinks may follow; once all requests of the pass have been observed, whose
  // guesses were made without it.
  void LearnSuccessors(const Emission& emission);
  void MeasurePass();

  // scheduler_journal.cc
  // Whether the journal should have the last pass's tokens before they are told.
  [[nodiscard]] bool JournalIsDue(double now) const;
  // Gives the journal all that it does not have, in one synced commit: all or none.
  Status JournalTokens();
  // Ends the requests whose tokens it did not take; what the last pass gave them is not told.
  void JournalFailed(const Status& status);
  static void TakeBack(LiveRequest& request, uint32_t n_tokens);
  // Whether its result stays in the journal after such an end.
  [[nodiscard]] static bool Keeps(const LiveRequest& request, FinishReason reason);
  void Record(const LiveRequest& request);
  void RecordEnd(uint64_t number, std::optional<std::string> outcome);
  void RecordPending();

  // scheduler_end.cc
  void End(LiveRequest& request, FinishReason reason, Status error = {});
  void Fail(LiveRequest& request, const Status& error);
  void Release(LiveRequest& request);
  // At most `limit` tokens, as the sink accepts them; the first of them anyway if `at_once`.
  void Tell(LiveRequest& request, uint32_t limit, bool at_once);
  void TellDone(LiveRequest& request);
  void Detach(LiveRequest& request);

  const SchedulerOptions options_;
  const ModelFingerprint model_;
  const uint32_t vocab_size_;
  Tokenizer& tokenizer_;
  Runner& runner_;
  KvCache& kv_;
  StageStore& store_;
  Journal& journal_;

  std::vector<std::unique_ptr<LiveRequest>> requests_;  // queued and active ones by rising number
  std::vector<bool> slots_;                             // [max_active]: taken
  PassComposer composer_;
  FairOrder fair_;
  WaitEstimate estimate_;
  std::string suspended_;  // why, once Suspend was called
  SchedulerStatus totals_;

  // The running pass; a request that has left it is null.
  std::vector<PassItem> items_;
  std::vector<LiveRequest*> in_pass_;
  double pass_began_ = 0;
  uint32_t pass_prompt_rows_ = 0;
  PassCost pass_cost_;  // of passes without prompt rows
  Successors successors_;
  DraftGrants draft_grants_;

  // The journal's newest tokens may be missing for so long: they are the same when they are
  // computed again. A synced commit takes 0.5 ms of a fast disk, and wears a card out.
  static constexpr double kJournalSeconds = 1;
  double journaled_at_ = -kJournalSeconds;  // when it had all of them
  // Ends that the journal did not take, tried again with the next one. At most kMaxUnrecorded.
  struct Unrecorded {
    uint64_t number;
    std::optional<std::string> outcome;  // nullopt: to be removed
  };
  static constexpr size_t kMaxUnrecorded = 64;
  std::vector<Unrecorded> unrecorded_;

  // Work space of BeginPass, PassDone and JournalTokens, reserved at construction; ints_ grows with
  // what is generated in kJournalSeconds, 8 bytes a token.
  std::vector<PassCandidate> candidates_;
  std::vector<LiveRequest*> candidate_requests_;
  std::vector<PassShare> shares_;
  std::vector<int32_t> ints_;
  std::vector<Journal::Emitted> emitted_;
  std::vector<Emission> emitters_;
  std::vector<DraftOffer> offers_;
  // Of QueueOrder and Waits.
  std::vector<FairOrder::Entry> entries_;
  std::vector<LiveRequest*> entry_requests_;
  std::vector<LiveRequest*> order_;
  std::vector<WaitEstimate::Work> active_work_;
  std::vector<WaitEstimate::Work> queued_work_;
  std::vector<double> waits_;
};

}  // namespace thimble
