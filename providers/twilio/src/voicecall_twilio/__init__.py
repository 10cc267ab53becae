"""Twilio as a carrier: REST, TwiML, webhooks and Media Streams."""
