"""The pages that are written from the rows and from the solvers: docs/benchmarks.md and docs/samplers.md."""
