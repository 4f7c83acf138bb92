"""The paper's tables as commands: what is trained for each cell, and the report that sets it beside the paper."""
