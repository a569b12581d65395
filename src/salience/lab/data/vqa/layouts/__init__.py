"""One layout of question files a file. To add one: a module with `reads` and `entries`, listed in `question_folder`."""
