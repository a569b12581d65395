"""One layout of question files a file. To add one: a module with `reads` and `entries`, listed in `question_folder`.

`reads(content)` tells whether a file has the layout; `entries(content)` gives its entries and raises ValueError that
names the row, for a missing or wrong value.
"""
