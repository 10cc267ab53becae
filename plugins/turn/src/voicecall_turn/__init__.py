"""Voice activity detection with the WebRTC detector."""
