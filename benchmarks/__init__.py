"""The measurements. README.md says what is timed, against whom and how."""
