"""Packages, package data and the two native modules. Everything else is in pyproject.toml."""

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, find_namespace_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.editable_wheel import editable_wheel
from setuptools.errors import CompileError, OptionError

X86 = platform.machine() in ("x86_64", "AMD64")

# No contraction: a fused multiply-add rounds once where the reference rounds twice, and all
# backends must return the same bits.
CXX_FLAGS = "-O3 -std=c++17 -fPIC -fopenmp -fvisibility=hidden -ffp-contract=off -Wall"
NVCC_FLAGS = "-O3 -std=c++17 -fmad=false -Xcompiler -fPIC,-fvisibility=hidden,-ffp-contract=off"
DEFAULT_ARCHS = "8.0 9.0+PTX"

AVX512_FLAGS = "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mf16c"
# Files that are called only after a check of the running machine, by the end of their names. There
# is no -march=native: a wheel runs on other machines than the one that built it.
ISA_FLAGS = {
    "_avx2.cpp": "-mavx2 -mfma -mf16c",
    "_avx512.cpp": AVX512_FLAGS,
    "_avx512_bf16.cpp": f"{AVX512_FLAGS} -mavx512bf16",
    "_amx.cpp": f"{AVX512_FLAGS} -mavx512bf16 -mamx-tile -mamx-bf16",
}

# Networks, what they were made with and what they draw, and the server's page.
DATA = {"": ["*.safetensors", "*.json", "*.png", "py.typed", "*.html", "*.css", "*.js", "*.svg"]}

# Folders that are links in the package, and what they lead to.
LINKS = {"diffusion_engine.kernels": "kernels", "diffusion_engine.zoo.gallery": "docs/gallery"}

NINJA_RULES = """\
rule cxx
  command = $cxx $flags -MMD -MF $out.d -c $in -o $out
  depfile = $out.d
  deps = gcc
rule cu
  command = $nvcc $flags -MMD -MF $out.d -c $in -o $out
  depfile = $out.d
  deps = gcc
rule link
  command = $linker $in -o $out
"""


def package_layout(root):
    """Returns (packages, package_dir). Where a link of LINKS arrived as a text file (a zip of the tree,
    Windows) the mapping takes its place."""
    found = find_namespace_packages(
        str(root), include=["diffusion_engine*"], exclude=["*__pycache__*"]
    )
    files = {
        name: folder for name, folder in LINKS.items() if (root / name.replace(".", "/")).is_file()
    }
    return [*found, *files], files


def without_links(readme):
    """A README for a package index, which has none of the files beside it: no pictures, no marks for tests,
    and links to files become their text."""
    readme = re.sub(r"<!--.*?-->\n?", "", readme, flags=re.DOTALL)
    readme = re.sub(r"<picture>.*?</picture>\n*|<img [^>]*>\n*", "", readme, flags=re.DOTALL)
    readme = re.sub(r"!\[[^]]*\]\([^)]*\)\n*", "", readme)
    return re.sub(r"\[([^]]*)\]\((?!https?:|#)[^)]*\)", r"\1", readme)


def isa_flags(source):
    return next((flags for end, flags in ISA_FLAGS.items() if source.endswith(end)), "")


def find_nvcc():
    """The toolkit decides, not the device and not torch, which an isolated build cannot see."""
    if os.environ.get("WITH_CUDA") == "0":
        return None
    home = os.environ.get("CUDA_HOME")
    in_home = shutil.which("nvcc", path=os.path.join(home, "bin")) if home else None
    nvcc = in_home or shutil.which("nvcc")
    if nvcc is None and os.environ.get("WITH_CUDA") == "1":
        raise OptionError(
            f"WITH_CUDA=1 needs nvcc, but it is neither in CUDA_HOME/bin (CUDA_HOME={home}) nor on "
            "PATH. Set CUDA_HOME to the toolkit's folder, or unset WITH_CUDA to build without it."
        )
    return nvcc


def arch_flags(archs):
    """nvcc's -gencode flags for a list in the style of TORCH_CUDA_ARCH_LIST: '8.0;9.0a+PTX'."""
    flags = []
    for arch in re.split(r"[;,\s]+", archs.strip()):
        match = re.fullmatch(r"(\d+)\.(\d[af]?)(\+PTX)?", arch)
        if match is None:
            raise OptionError(
                f"TORCH_CUDA_ARCH_LIST={archs!r}: {arch!r} is not an architecture. "
                "Write numbers such as '8.0 9.0+PTX', or unset it."
            )
        number = match[1] + match[2]
        flags.append(f"-gencode arch=compute_{number},code=sm_{number}")
        if match[3]:
            flags.append(f"-gencode arch=compute_{number},code=compute_{number}")
    return " ".join(flags)


def extensions(root, x86=X86):
    """`_cpu` always on Linux; `_cuda` when nvcc is found, and then a failure does not fail the install.
    Elsewhere the package is plain Python and the torch backend serves."""
    if sys.platform != "linux":
        return []

    def files(pattern):
        return sorted(path.relative_to(root).as_posix() for path in root.glob(pattern))

    depends = files("csrc/**/*.h") + files("csrc/**/*.hpp") + files("csrc/**/*.cuh")
    # An inline function of a header is compiled into every file that uses it and the linker keeps
    # the first copy. Sorted by flags ("", AVX2, AVX-512 ...), the kept copy is the least demanding one.
    cpu = [f for f in sorted(files("csrc/cpu/**/*.cpp"), key=isa_flags) if x86 or not isa_flags(f)]
    modules = [Extension("diffusion_engine._cpu", cpu, depends=depends)]
    cuda = files("csrc/cuda/*.cpp") + files("csrc/cuda/*.cu")
    if cuda and find_nvcc():
        module = Extension("diffusion_engine._cuda", cuda, depends=depends)
        module.optional = os.environ.get("WITH_CUDA") != "1"
        # Read here, where an error stops the install: a typo is no reason to go without CUDA.
        archs = os.environ.get("TORCH_CUDA_ARCH_LIST") or DEFAULT_ARCHS
        module.extra_compile_args = [arch_flags(archs)]
        modules.append(module)
    return modules


def escape(path):
    return re.sub(r"([$ :])", r"$\1", str(path))


def ninja_text(ext, target):
    """The build.ninja of one module. nvcc also compiles and links the .cpp files of `_cuda`: it
    knows where its headers and its static runtime are."""
    import pybind11

    includes = ["csrc", "csrc/common", pybind11.get_include(), sysconfig.get_path("include")]
    common = " ".join(f"-I{shlex.quote(os.path.abspath(path))}" for path in includes)
    if X86:
        common += " -DDE_X86"
    if os.environ.get("DIFFUSION_ENGINE_DEBUG") == "1":
        common += " -DDE_DEBUG"
    cxx = os.environ.get("CXX", "c++")
    variables = {"cxx": cxx}
    if ext.name.endswith("_cuda"):
        host = f" -ccbin {shlex.quote(shlex.split(cxx)[-1])}" if "CXX" in os.environ else ""
        variables["nvcc"] = shlex.quote(find_nvcc()) + host
        variables["flags"] = f"{NVCC_FLAGS} {' '.join(ext.extra_compile_args)} {common}"
        variables["linker"] = "$nvcc -shared -cudart static"
        rule = "cu"
    else:
        variables["flags"] = f"{CXX_FLAGS} {common}"
        variables["linker"] = "$cxx -shared -fopenmp"
        rule = "cxx"

    lines = [NINJA_RULES, *(f"{name} = {value}" for name, value in variables.items())]
    objects = []
    for source in ext.sources:
        # By the path: files of two folders may have one name.
        objects.append(escape(Path(source).as_posix().replace("/", ".") + ".o"))
        lines.append(f"build {objects[-1]}: {rule} {escape(os.path.abspath(source))}")
        if rule == "cxx" and isa_flags(source):
            lines.append(f"  flags = $flags {isa_flags(source)}")
    lines.append(f"build {escape(target)}: link {' '.join(objects)}")
    return "\n".join(lines) + "\n"


def find_ninja():
    if found := shutil.which("ninja"):
        return found
    import ninja  # its executable is off PATH when the environment is not activated

    return os.path.join(ninja.BIN_DIR, "ninja")


class NinjaBuild(build_ext):
    def build_extension(self, ext):
        target = Path(self.get_ext_fullpath(ext.name)).absolute()
        folder = Path(self.build_temp, ext.name).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "build.ninja").write_text(ninja_text(ext, target))
        jobs = ["-j", os.environ["MAX_JOBS"]] if "MAX_JOBS" in os.environ else []
        try:
            subprocess.run([find_ninja(), "-C", str(folder), *jobs], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            # Only setuptools' own errors are forgiven by Extension(optional=True).
            raise CompileError(
                f"{ext.name} did not build ({error}); the compiler's own message is above. "
                "It needs a C++17 compiler with OpenMP: set CXX to choose one."
            ) from error


class CheckedEditable(editable_wheel):
    def run(self):
        if "diffusion_engine.kernels" in self.distribution.package_dir:
            raise OptionError(
                "diffusion_engine/kernels is a file where an editable install needs the link to "
                "../kernels, because Python's import system does not know the mapping. Run "
                "`ln -sf ../kernels diffusion_engine/kernels` (git on Windows: `git config "
                "core.symlinks true`, then check it out again), or install without -e."
            )
        super().run()


if __name__ == "__main__":
    here = Path(__file__).parent
    packages, package_dir = package_layout(here)
    setup(
        packages=packages,
        package_dir=package_dir,
        package_data=DATA,
        ext_modules=extensions(here),
        long_description=without_links((here / "README.md").read_text(encoding="utf-8")),
        long_description_content_type="text/markdown",
        cmdclass={"build_ext": NinjaBuild, "editable_wheel": CheckedEditable},
    )
