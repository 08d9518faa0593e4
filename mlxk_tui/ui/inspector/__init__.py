"""The inspector of one model, and the actions on models, for all panes."""
