// The way to Python: work that is queued from there, and its lock.
#include <dlfcn.h>

#include "runtime.h"

thread_local bool seen = false;
static void (*do_closure)(long) = nullptr;
static std::mutex guard;
static std::vector<long> forgotten;

// A closure of Python, by its number. Once nothing can call it any more, Python is told when it asks
// next: it could not be called from here, where locks may be held.
struct Closure {
  long number;
  explicit Closure(long number) : number(number) {}
  ~Closure() {
    std::lock_guard<std::mutex> lock(guard);
    forgotten.push_back(number);
  }
};

EXPORT void stand_in_calls(void (*function)(long)) { do_closure = function; }

// Queue a closure on a stream, or capture it.
EXPORT int stand_in_push(void* stream, long number) {
  auto closure = std::make_shared<Closure>(number);
  return add(stream_of((cudaStream_t)stream), [closure] { do_closure(closure->number); }, "work of a kernel");
}

// The number of a closure that nobody needs any more, or 0.
EXPORT long stand_in_forgotten() {
  std::lock_guard<std::mutex> lock(guard);
  if (forgotten.empty()) return 0;
  long number = forgotten.back();
  forgotten.pop_back();
  return number;
}

// This thread begins or ends an operation whose values Python queues. Says what was before.
EXPORT int stand_in_sees(int now) {
  bool before = seen;
  seen = now != 0;
  return before;
}

EXPORT long stand_in_illegal() { return counts.illegal; }
EXPORT long stand_in_launched() { return counts.launched; }
EXPORT long stand_in_kernels() { return counts.kernels; }

// torch calls with Python's lock or without it. Work needs it, so nobody may wait with it in hand.
Unlocked::Unlocked() {
  static auto is_there = (int (*)())dlsym(RTLD_DEFAULT, "Py_IsInitialized");
  static auto has_lock = (int (*)())dlsym(RTLD_DEFAULT, "PyGILState_Check");
  static auto let_go = (void* (*)())dlsym(RTLD_DEFAULT, "PyEval_SaveThread");
  if (is_there && has_lock && let_go && is_there() && has_lock()) saved = let_go();
}

Unlocked::~Unlocked() {
  static auto take_back = (void (*)(void*))dlsym(RTLD_DEFAULT, "PyEval_RestoreThread");
  if (saved) take_back(saved);
}
