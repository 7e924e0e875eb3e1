// What the completion queue hands back when an operation completes: an object with one handler.
// Called by: RpcServer::Poll. Memory: three pointers, inside the call that owns it.
#pragma once

namespace thimble {

class Tag {
 public:
  // `ok` false is ordinary: the client is gone, or the server stops.
  virtual void Complete(bool ok) = 0;

 protected:
  ~Tag() = default;
};

template <typename Owner>
class MemberTag final : public Tag {
 public:
  using Handler = void (Owner::*)(bool ok);
  MemberTag(Owner* owner, Handler handler) : owner_(owner), handler_(handler) {}
  // The handler may delete the owner and this tag with it.
  void Complete(bool ok) override { (owner_->*handler_)(ok); }

 private:
  Owner* const owner_;
  const Handler handler_;
};

}  // namespace thimble
