"""What the blocks of the pages say, as functions of the committed rows."""
