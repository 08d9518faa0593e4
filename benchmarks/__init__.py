"""Each benchmark prints medians and ratios against a named peer that is measured in the same run."""
