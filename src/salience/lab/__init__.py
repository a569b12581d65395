"""Studies: data, fitting, evaluation, cost measurements and reports."""
