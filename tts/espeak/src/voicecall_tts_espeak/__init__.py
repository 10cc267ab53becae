"""Speech synthesis with eSpeak NG."""
