"""The pages that people read: their blocks run, and what they name is there.

    python tests/helpers/pages PAGE.md ...

says what is wrong with pages, by page and line. `blocks` reads a page, `runs` runs it, `shell` and
`commands` its command lines, `names` checks names and links; `given` holds what a reader brings.
"""
