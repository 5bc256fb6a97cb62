"""The order of test files under pytest-xdist: long ones first, so that none is left for one worker alone."""

from collections import Counter

# Seconds of files that take longer than their number of tests says, of two workers on two cores; the order
# matters and not the values, so that old ones do no harm.
SECONDS = {
    "server/test_faults_start.py": 90,
    "adapters/test_pipelines.py": 50,
    "workers/test_healing.py": 50,
    "server/test_faults_parent.py": 45,
    "sampler/test_ranks.py": 40,
    "package/test_pages.py": 60,
    "training/test_trainer.py": 60,
    "server/test_faults_worker.py": 30,
    "benchmarks/test_benchmark_runs.py": 30,
    "ray/test_ray_cluster.py": 30,
    "backends/test_cuda_build.py": 20,
    "package/test_mutation.py": 20,
    "solvers/test_cld_golden.py": 20,
    "solvers/test_encoding.py": 20,
    "genie/test_genie.py": 15,
    "server/test_equality_under_load.py": 15,
    "workers/test_supervisor.py": 15,
    "benchmarks/test_benchmark_soak.py": 15,
    "package/test_contributing_kernel.py": 15,
    "drivers/test_paradigms.py": 12,
    "server/test_faults_clients.py": 12,
    "server/test_faults_network.py": 12,
    "client/test_client_served.py": 12,
    "server/test_fuzz.py": 10,
}
SECOND = 50  # tests of other files, about


def ordered(items):
    """Tests in the order of their files' lengths, the longest first; those of a file stay in their order."""
    files = [item.nodeid.partition("::")[0] for item in items]
    seconds = {file: count / SECOND for file, count in Counter(files).items()}
    seconds |= {
        f"tests/{file}": known for file, known in SECONDS.items() if f"tests/{file}" in seconds
    }
    first = {file: i for i, file in reversed(list(enumerate(files)))}
    order = sorted(range(len(items)), key=lambda i: (-seconds[files[i]], first[files[i]], i))
    return [items[i] for i in order]
