// Pictures of this browser, in IndexedDB. Where it has none (in a private window, say) they last as long as the
// page.

const NAME = "pictures";

const opening = new Promise((resolve) => {
  const request = indexedDB.open("diffusion-engine", 1);
  request.onupgradeneeded = () => request.result.createObjectStore(NAME, { keyPath: "id" });
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => resolve(null);
}).catch(() => null);

async function run(mode, act) {
  const database = await opening;
  if (!database) return null;
  return new Promise((resolve) => {
    const transaction = database.transaction(NAME, mode);
    const request = act(transaction.objectStore(NAME));
    transaction.oncomplete = () => resolve(request.result);
    transaction.onabort = transaction.onerror = () => resolve(null);
  });
}

export const all = async () => (await run("readonly", (store) => store.getAll())) ?? [];
export const put = (picture) => run("readwrite", (store) => store.put(picture));
export const remove = (id) => run("readwrite", (store) => store.delete(id));
export const clear = () => run("readwrite", (store) => store.clear());
