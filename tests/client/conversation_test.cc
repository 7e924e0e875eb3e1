#include "client/conversation.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

namespace thimble {
namespace {

// `n` questions with their answers, and one more question; each message has 100 bytes.
Conversation Exchanges(int n) {
  Conversation conversation;
  for (int i = 0; i < n; ++i) {
    conversation.Add(v1::ROLE_USER, std::string(100, 'q'));
    conversation.Add(v1::ROLE_ASSISTANT, std::string(100, 'a'));
  }
  conversation.Add(v1::ROLE_USER, std::string(100, 'Q'));
  return conversation;
}

TEST(Conversation, TheOldestExchangeGoesFirstAndTheQuestionNever) {
  Conversation conversation = Exchanges(2);
  conversation.SetSystem("be brief");
  EXPECT_EQ(conversation.DropOldest(), 2U);
  EXPECT_EQ(conversation.messages().size(), 4U);
  EXPECT_EQ(conversation.DropOldest(), 2U);
  EXPECT_EQ(conversation.DropOldest(), 0U);
  ASSERT_EQ(conversation.messages().size(), 2U);
  EXPECT_EQ(conversation.system(), "be brief");
  EXPECT_EQ(conversation.messages().back().content[0], 'Q');
}

TEST(Conversation, FitsByWhatTheDaemonCounted) {
  Conversation conversation = Exchanges(4);  // 9 messages
  conversation.Counted(900);                 // 100 tokens each
  EXPECT_EQ(conversation.Fit(1024, 100), 0U);
  // 900 + 200 are too many: down to half the context, 5 messages.
  EXPECT_EQ(conversation.Fit(1024, 200), 4U);
  EXPECT_EQ(conversation.messages().size(), 5U);
  EXPECT_EQ(conversation.messages().front().role, v1::ROLE_USER);
}

TEST(Conversation, BeforeAnythingWasCountedItIsEstimated) {
  Conversation conversation = Exchanges(4);  // 9 * 116 bytes, 348 tokens at 3 bytes each
  EXPECT_EQ(conversation.Fit(400, 40), 0U);
  EXPECT_GT(conversation.Fit(360, 40), 0U);
}

TEST(Conversation, WhatCannotFitStaysForTheDaemonToRefuse) {
  Conversation conversation = Exchanges(0);
  EXPECT_EQ(conversation.Fit(8, 4), 0U);
  EXPECT_EQ(conversation.messages().size(), 1U);
}

TEST(Conversation, ClearingKeepsTheInstructions) {
  Conversation conversation = Exchanges(1);
  conversation.SetSystem("one");
  conversation.SetSystem("two");
  conversation.Clear();
  ASSERT_EQ(conversation.messages().size(), 1U);
  EXPECT_EQ(conversation.system(), "two");
  conversation.SetSystem("");
  EXPECT_TRUE(conversation.messages().empty());
}

class SavedConversation : public testing::Test {
 protected:
  SavedConversation() {
    const int fd = ::mkstemp(path_.data());
    EXPECT_GE(fd, 0);
    ::close(fd);
  }
  ~SavedConversation() override { (void)::unlink(path_.c_str()); }
  void Write(const std::string& text) { std::ofstream(path_) << text; }
  std::string path_ = "/tmp/thimble-conversation-XXXXXX";
};

TEST_F(SavedConversation, ComesBackAsItWas) {
  Conversation conversation;
  conversation.SetSystem("be \"brief\"");
  conversation.Add(v1::ROLE_USER, "two\nlines, \\ and \xf0\x9f\x90\x8b");
  conversation.Add(v1::ROLE_ASSISTANT, "");
  ASSERT_TRUE(conversation.Save(path_).ok());
  const Result<Conversation> loaded = Conversation::Load(path_);
  ASSERT_TRUE(loaded.ok()) << loaded.status().ToString();
  ASSERT_EQ(loaded->messages().size(), 3U);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(loaded->messages()[i].role, conversation.messages()[i].role);
    EXPECT_EQ(loaded->messages()[i].content, conversation.messages()[i].content);
  }
}

TEST_F(SavedConversation, AnythingElseIsRefusedWithItsLine) {
  const std::string good = "{\"role\":\"user\",\"content\":\"a\"}\n";
  for (const char* bad : {"hello", "[]", R"({"role":"user"})", R"({"role":"cat","content":"b"})",
                          R"({"role":"user","content":7})"}) {
    Write(good + bad + "\n");
    const Result<Conversation> loaded = Conversation::Load(path_);
    ASSERT_FALSE(loaded.ok()) << bad;
    EXPECT_NE(loaded.status().message().find("line 2"), std::string::npos)
        << loaded.status().ToString();
  }
  EXPECT_EQ(Conversation::Load(path_ + "-none").status().code(), StatusCode::kNotFound);
  EXPECT_FALSE(Conversation().Save("/nowhere/at/all").ok());
}

}  // namespace
}  // namespace thimble
