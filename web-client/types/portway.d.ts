/** What the wasm client exports, as `worker.js` uses it; wasm-bindgen writes the real module next to it. */
export default function init(options?: { module_or_path: URL }): Promise<unknown>;

export class Connection {
  constructor(options: string, host: object);
  open(method: string, url: string, headers: [string, string][], hasBody: boolean): Promise<Exchange>;
  websocket(url: string, protocols: string[], headers: [string, string][]): Promise<Socket>;
  cookies(url: string): string;
  setCookie(url: string, cookie: string): void;
  allCookies(): string;
  hearCookies(json: string): void;
  attach(session: string, channel: RTCDataChannel): void;
  peer(json: string): void;
  retry(): void;
  free(): void;
}

export class Pairing {
  constructor(options: string, host: object);
  confirm(): string | undefined;
  free(): void;
}

export class Exchange {
  response(): Promise<unknown>;
  read(): Promise<Uint8Array | undefined>;
  write(bytes: Uint8Array): Promise<void>;
  finish(): void;
  cancel(): void;
  free(): void;
}

export class Socket {
  readonly protocol: string;
  next(): Promise<any>;
  sendText(text: string): Promise<void>;
  sendBinary(bytes: Uint8Array): Promise<void>;
  close(code: number | undefined, reason: string): Promise<void>;
  finish(): Promise<void>;
  abort(): void;
  free(): void;
}
