"""Options of other tools that pages use, each with the values it takes; "" where it takes none."""

NUMBER, TEXT = r"\d+", r".+"
TRACES = r"(?:cuda|cuda-hw|nvtx|osrt|cublas|cudnn|none)"
REPORTS = (
    r"(?:cuda_(?:api_sum|gpu_kern_sum|gpu_mem_time_sum|gpu_trace)|"
    r"nvtx_(?:sum|kern_sum|gpu_proj_sum|gpu_proj_trace))"
)
SECTIONS = (
    r"SpeedOfLight|MemoryWorkloadAnalysis|LaunchStats|Occupancy|ComputeWorkloadAnalysis|WarpStateStats|"
    r"SchedulerStats|InstructionStats|SourceCounters"
)

# Nsight Systems' user guide, "CLI profile command switch options"
NSYS_PROFILE = {
    "--trace": rf"{TRACES}(,{TRACES})*",
    "-t": rf"{TRACES}(,{TRACES})*",
    "--cuda-graph-trace": r"(graph|node)(:\w+)?",
    "--capture-range": r"none|cudaProfilerApi|nvtx|hotkey",
    "--sample": r"none|cpu|process-tree|system-wide",
    "--force-overwrite": r"true|false",
    "--stats": r"true|false",
    "--output": TEXT,
    "-o": TEXT,
}
NSYS_STATS = {
    "--report": rf"{REPORTS}(,{REPORTS})*",
    "-r": rf"{REPORTS}(,{REPORTS})*",
    "--format": r"column|csv|table|json",
}
# Nsight Compute's "CLI" page, "Command Line Options"
NCU = {
    "--nvtx": "",
    "--nvtx-include": TEXT,
    "--launch-skip": NUMBER,
    "--launch-count": NUMBER,
    "--section": SECTIONS,
    "--set": r"basic|detailed|full|roofline",
    "--graph-profiling": r"node|graph",
    "--kernel-name": TEXT,
    "--clock-control": r"base|none",
    "--export": TEXT,
    "-o": TEXT,
}
# Used on pages as in the checks of a change.
OF_CI = ("build", "codespell", "mypy", "ruff", "twine", "zensical")
# What a reader does and the checks of a change do not.
ALSO = {"zensical serve", "ruff format .", "ruff check --fix ."}
