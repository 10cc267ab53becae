"""Whole OpenClaw configuration files, as users have them."""

from __future__ import annotations

__all__ = ["CURRENT", "ENVIRON", "FILES", "OLD"]

ENVIRON = {
    "CARRIER_TOKEN": "carrier-token-value",
    "EARS_KEY": "ears-key-value",
    "GATEWAY_TOKEN": "gateway-token-value",
    "HOME": "/home/somebody",
}

_APRIL_TRIAL = """\
// A first trial, spring 2026.
{
  messages: {
    queue: { mode: "collect" },
    tts: { enabled: true, provider: "openai", openai: { voice: "alloy" } },
  },
  channels: { telegram: { enabled: true, botToken: "123:abc" } },
  plugins: {
    enabled: true,
    entries: {
      "voice-call": {
        enabled: true,
        config: {
          provider: "log", // no carrier yet
          twilio: { accountSid: "AC1", authToken: "t", from: "+15550001111" },
          streaming: {
            enabled: false,
            sttProvider: "openai-realtime",
            openaiApiKey: "${EARS_KEY}",
            sttModel: "gpt-4o-transcribe",
            silenceDurationMs: 700,
            vadThreshold: 0.4,
          },
          realtime: { agentContext: { includeSystemPrompt: true } },
          tts: {
            enabled: false,
            openai: { model: "gpt-4o-mini-tts", voice: "coral" },
            elevenlabs: { voiceId: "abc", modelId: "eleven_multilingual_v2" },
            edge: { voice: "en-US-MichelleNeural" },
          },
        },
      },
    },
  },
}
"""

_APRIL_SHORT = """\
{
  plugins: { entries: { "voice-call": { config: {
    provider: "mock",
    fromNumber: "+15550001111",
    twilio: { from: "+15550002222" },
    // The vendor went without saying.
    streaming: { openaiApiKey: "k", sttModel: "whisper-1", vadThreshold: 0.5 },
    numbers: { "+15550001111": { tts: { openai: { voice: "nova" } } } },
  } } } },
}
"""

_APRIL_PLAIN = """\
{
  plugins: {
    allow: ["voice-call", "memory-core"],
    entries: {
      "memory-core": { enabled: true, config: { depth: 3 } },
      "voice-call": {
        config: {
          provider: "mock",
          toNumber: "+1 555 000 9999",
          outbound: { defaultMode: "conversation", notifyHangupDelaySec: 0 },
          serve: { port: 3400, bind: "127.0.0.1", path: "/voice/webhook" },
          tailscale: { mode: "off", path: "/voice/webhook" },
          tunnel: { provider: "none" },
          skipSignatureVerification: false,
          maxDurationSeconds: 600,
          staleCallReaperSeconds: 0,
        },
      },
    },
  },
}
"""

_AUGUST_EVERYTHING = """\
{
  meta: { lastTouchedVersion: "2026.8.1" },
  gateway: {
    port: 18790,
    mode: "local",
    bind: "loopback",
    auth: {
      mode: "token",
      token: { source: "env", provider: "default", id: "GATEWAY_TOKEN" },
      allowTailscale: true,
    },
    controlUi: { enabled: true },
    reload: { mode: "hybrid" },
  },
  secrets: {
    providers: { default: { source: "env", allowlist: ["CARRIER_TOKEN", "GATEWAY_TOKEN"] } },
    defaults: { env: "default" },
  },
  channels: { whatsapp: { allowFrom: ["+15550001234"] } },
  hooks: { enabled: true, path: "/hooks" },
  models: { providers: { openai: { baseUrl: "https://models.example/v1" } } },
  tools: { profile: "full" },
  session: { scope: "per-sender", mainKey: "main" },
  agents: {
    defaults: { model: { primary: "openai/gpt-5" }, workspace: "~/work", backend: "scripted" },
    list: [{ id: "main", default: true }, { id: "desk", tools: { allow: ["read"] } }],
  },
  tts: {
    auto: "inbound",
    mode: "final",
    provider: "elevenlabs",
    persona: "calm",
    personas: { calm: { label: "Calm", instructions: "Slowly." } },
    summaryModel: "openai/gpt-5-mini",
    modelOverrides: {
      enabled: true, allowText: true, allowProvider: false, allowVoice: true,
      allowModelId: true, allowVoiceSettings: true, allowNormalization: true, allowSeed: true,
    },
    prefsPath: "~/.prefs/tts.json",
    maxTextLength: 3000,
    timeoutMs: 20000,
    providers: {
      openai: { apiKey: "${EARS_KEY}", model: "gpt-4o-mini-tts", speakerVoice: "coral", speed: 1 },
      elevenlabs: {
        apiKey: { source: "env", provider: "default", id: "CARRIER_TOKEN" },
        speakerVoiceId: "abc", modelId: "eleven_v3", seed: 7, applyTextNormalization: "auto",
        voiceSettings: { stability: 0.5, similarityBoost: 0.7, style: 0, useSpeakerBoost: true },
      },
    },
  },
  plugins: {
    enabled: true,
    slots: { memory: "memory-core" },
    installs: { "voice-call": { source: "npm" } },
    load: { paths: ["~/plugins"] },
    entries: {
      "memory-core": { enabled: false },
      "voice-call": {
        enabled: true,
        subagent: { allowModelOverride: true },
        config: {
          enabled: true,
          provider: "twilio",
          fromNumber: "+15550001111",
          toNumber: "+15550002222",
          twilio: {
            accountSid: "AC123",
            authToken: { source: "env", provider: "default", id: "CARRIER_TOKEN" },
            region: "ie1",
          },
          telnyx: { apiKey: "KEY", connectionId: "1", publicKey: "AAAA" },
          plivo: { authId: "MA1", authToken: "p" },
          agentId: "desk",
          sessionScope: "per-call",
          store: "~/calls",
          inboundPolicy: "allowlist",
          allowFrom: ["+15550003333", "+15550004444"],
          inboundGreeting: "Good day.",
          numbers: {
            "+15550001111": {
              inboundGreeting: "The clinic.",
              tts: { providers: { openai: { speakerVoice: "nova" } } },
              agentId: "main",
              responseModel: "openai/gpt-5-mini",
              responseSystemPrompt: "Be brief.",
              responseTimeoutMs: 20000,
            },
          },
          outbound: { defaultMode: "notify", notifyHangupDelaySec: 3 },
          maxDurationSeconds: 300,
          staleCallReaperSeconds: 120,
          silenceTimeoutMs: 800,
          transcriptTimeoutMs: 180000,
          ringTimeoutMs: 30000,
          maxConcurrentCalls: 2,
          responseModel: "openai/gpt-5",
          responseSystemPrompt: "You answer the phone.",
          responseTimeoutMs: 30000,
          skipSignatureVerification: false,
          serve: { port: 3334, bind: "127.0.0.1", path: "/voice/webhook" },
          publicUrl: "https://phone.example.com/voice/webhook",
          tunnel: {
            provider: "ngrok",
            ngrokAuthToken: "tunnel-token",
            ngrokDomain: "phone.example.app",
            allowNgrokFreeTierLoopbackBypass: false,
          },
          tailscale: { mode: "off", port: 443, path: "/voice/webhook" },
          webhookSecurity: {
            allowedHosts: ["phone.example.com"],
            trustForwardingHeaders: false,
            trustedProxyIPs: ["127.0.0.1"],
          },
          streaming: {
            enabled: true,
            provider: "openai",
            streamPath: "/voice/stream",
            providers: { openai: { apiKey: "${EARS_KEY}", silenceDurationMs: 800 } },
            preStartTimeoutMs: 5000,
            maxPendingConnections: 32,
            maxPendingConnectionsPerIp: 4,
            maxConnections: 128,
          },
          realtime: {
            enabled: false,
            provider: "google",
            streamPath: "/voice/stream/realtime",
            instructions: "Speak briefly.",
            toolPolicy: "safe-read-only",
            consultPolicy: "substantive",
            consultThinkingLevel: "low",
            consultFastMode: true,
            tools: [{
              type: "function",
              name: "find_slot",
              description: "Finds a free slot.",
              parameters: {
                type: "object",
                properties: { day: { type: "string" } },
                required: ["day"],
              },
            }],
            fastContext: {
              enabled: true, timeoutMs: 800, maxResults: 3, sources: ["memory", "sessions"],
              fallbackToConsult: true,
            },
            agentContext: {
              enabled: true, maxChars: 6000, includeIdentity: true,
              includeWorkspaceFiles: true, files: ["SOUL.md", "IDENTITY.md", "USER.md"],
            },
            providers: { google: { model: "live", speakerVoice: "Kore", sessionResumption: true } },
          },
          tts: { provider: "openai", timeoutMs: 15000, providers: { openai: { speed: 1.1 } } },
        },
      },
    },
  },
}
"""

_AUGUST_FUNNEL = """\
{
  plugins: { entries: { "voice-call": { config: {
    provider: "mock",
    inboundPolicy: "open",
    tailscale: { mode: "funnel", port: 8443, path: "/voice/webhook" },
    realtime: { enabled: true, agentContext: { enabled: true } },
    agentId: "main",
  } } } },
}
"""

_EMPTY = "{}"

OLD = {"april-trial": _APRIL_TRIAL, "april-short": _APRIL_SHORT}
"""Files with keys that have since been renamed."""
CURRENT = {
    "april-plain": _APRIL_PLAIN,
    "august-everything": _AUGUST_EVERYTHING,
    "august-funnel": _AUGUST_FUNNEL,
    "empty": _EMPTY,
}
FILES = {**OLD, **CURRENT}
