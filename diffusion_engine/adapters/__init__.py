"""Networks of other libraries as `ScoreNetwork`s."""
