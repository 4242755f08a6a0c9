"""Jobs: accepted as a row, claimed by one worker at a time, ended exactly once."""
