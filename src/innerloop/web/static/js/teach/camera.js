// @ts-check
/** The webcam: one stream for all that show it, off when nobody does. */

import { h } from "../dom.js";
import { say } from "../shell.js";
import { t } from "../text.js";

const SIDE = 320;
/** @type {Promise<MediaStream>|null} */
let stream = null;
let users = 0;

/** @param {unknown} error */
function explain(error) {
  const name = error instanceof DOMException ? error.name : "none";
  const known = t(`teach.camera.${name}`);
  say(known.startsWith("teach.") ? t("teach.camera.failed") : known, "error");
}

/**
 * A video of the webcam, or null where there is none; the page says why.
 * @returns {Promise<HTMLVideoElement|null>}
 */
export async function watch() {
  users += 1;
  try {
    const devices = navigator.mediaDevices;
    if (!devices?.getUserMedia) throw new Error("no camera here");
    stream ??= devices.getUserMedia({ video: { width: 640, height: 480 }, audio: false });
    const video = /** @type {HTMLVideoElement} */ (h("video", { autoplay: true, playsinline: true, muted: true }));
    video.muted = true;
    video.srcObject = await stream;
    await video.play();
    return video;
  } catch (error) {
    leave();
    explain(error);
    return null;
  }
}

/** The video is not needed anymore. */
export function leave() {
  users -= 1;
  if (users > 0) return;
  const old = stream;
  stream = null;
  old?.then((s) => s.getTracks().forEach((track) => track.stop())).catch(() => {});
}

/** What it shows, square. @param {HTMLVideoElement} video @returns {Promise<File|null>} */
export async function frame(video) {
  const side = Math.min(video.videoWidth, video.videoHeight);
  if (!side) return null;
  const canvas = /** @type {HTMLCanvasElement} */ (h("canvas", { width: SIDE, height: SIDE }));
  const [left, top] = [(video.videoWidth - side) / 2, (video.videoHeight - side) / 2];
  canvas.getContext("2d")?.drawImage(video, left, top, side, side, 0, 0, SIDE, SIDE);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.9));
  return blob && new File([blob], "webcam.jpg", { type: "image/jpeg" });
}
