/** Shapes of WebRTC that pass through workers, whose library of types does not have them. */
interface RTCIceServer { credential?: string; urls: string | string[]; username?: string }
interface RTCIceCandidateInit { candidate?: string; sdpMLineIndex?: number | null; sdpMid?: string | null; usernameFragment?: string | null }
interface RTCSessionDescriptionInit { sdp?: string; type: 'answer' | 'offer' | 'pranswer' | 'rollback' }
