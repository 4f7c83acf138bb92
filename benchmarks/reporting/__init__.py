"""What `report.py` is made of: result files, tables of speed and of accuracy, and the document that holds them."""
