// @ts-check
import { shell } from "../shell.js";

shell();
