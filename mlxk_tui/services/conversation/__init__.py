"""An open chat: sending, answering again, branches. It knows no widget."""
