#include "kernels.h"

#include <atomic>
#include <stdexcept>

#include "counts.h"

#ifdef DE_X86
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace de {

AmxCounts amx_counts;

#ifdef DE_X86

struct Features {
  bool avx512_bf16 = false, amx = false;

  Features() {
    unsigned a, b, c, d;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl"))
      return;
    avx512_bf16 = __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 5 & 1);
    amx = avx512_bf16 && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 22 & 1) && (d >> 24 & 1) && permitted();
  }

  // Linux keeps the 8 KiB of a thread's tiles only for processes that ask for them.
  static bool permitted() {
    constexpr long REQUEST = 0x1023, TILE_DATA = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
  }
};

std::vector<const HalfKernels*> half_supported() {
  static const Features has;
  std::vector<const HalfKernels*> found;
  if (has.amx) found.push_back(&half_amx);
  if (has.avx512_bf16) found.push_back(&half_avx512_bf16);
  return found;
}

#else

std::vector<const HalfKernels*> half_supported() { return {}; }

#endif

static std::atomic<const HalfKernels*>& current() {
  static std::atomic<const HalfKernels*> chosen{half_supported().empty() ? nullptr : half_supported().front()};
  return chosen;
}

const HalfKernels* half_in_use() { return current().load(std::memory_order_relaxed); }

const HalfKernels& half_kernels() {
  if (const HalfKernels* found = half_in_use()) return *found;
  throw std::runtime_error("this processor has no products in bf16: neither AMX nor avx512_bf16");
}

bool choose_half(const std::string& name) {
  if (name.empty()) {
    current() = nullptr;
    return true;
  }
  std::vector<const HalfKernels*> known = half_supported();
  known.push_back(&half_emulated);
  for (const HalfKernels* k : known) {
    if (name != k->name) continue;
    current() = k;
    return true;
  }
  return false;
}

}  // namespace de
