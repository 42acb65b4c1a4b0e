// JSON in the browser's storages. A full or forbidden storage is no reason to stop: then nothing is remembered.

const PREFIX = 'flota.';

function wrap(storage: () => Storage) {
  return {
    read<T>(key: string): T | null {
      try {
        const text = storage().getItem(PREFIX + key);
        return text === null ? null : (JSON.parse(text) as T);
      } catch {
        return null;
      }
    },
    /** False when it did not fit or is not allowed. */
    write(key: string, value: unknown): boolean {
      try {
        storage().setItem(PREFIX + key, JSON.stringify(value));
        return true;
      } catch {
        return false;
      }
    },
    remove(key: string): void {
      try {
        storage().removeItem(PREFIX + key);
      } catch {
        // Nothing is kept, so there is nothing to remove.
      }
    },
  };
}

/** Stays when the browser is closed. Never for secrets. */
export const local = wrap(() => localStorage);
/** Ends with the tab; a reload keeps it. */
export const tab = wrap(() => sessionStorage);
