"""The pictures of docs/drivers/: a module a picture, whose `draw(path)` writes it."""
