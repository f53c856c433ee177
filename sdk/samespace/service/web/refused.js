/** Why a request was not answered: a word of the service, `unreachable` or `cancelled`. */
export class Refused extends Error {
  constructor(reason, detail = "", { wait = 0, id = "" } = {}) {
    super(detail || reason);
    this.reason = reason;
    this.detail = detail;
    this.wait = wait; // seconds
    this.id = id; // of the request, as the service's log has it
  }
}
