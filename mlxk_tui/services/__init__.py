"""Long-lived parts without a screen, made once by the app and by headless commands alike."""
