-- Claims of several partitions, one after the other in the order given, until ``wanted`` messages or ``byte_limit``
-- bytes are taken: one round trip and one commit for what a consumer finds a little of in many places. Returns the rows
-- of claim, each with its partition; a partition that was not come to has none. Partitions in ascending order: what
-- settles leases of several goes through them in the same one.
create or replace function claim_several(
    partition_ids bigint[], g int, known_version int, who text, wanted int, byte_limit bigint, lease_ms bigint,
    mode text, flight_limit bigint, siblings int, is_first boolean)
returns table (
    partition_id bigint, outcome text, more boolean, lease_id bigint, lease_deadline timestamptz, lease_epoch int,
    first_offset bigint, offsets bigint[], published timestamptz, keys text[], metas jsonb[], payloads bytea[],
    attempts int[], n_dead int, n_filtered int, n_expired int, n_lost bigint)
language plpgsql rows 10 as $$
#variable_conflict use_column
declare
    room int := wanted;
    byte_room bigint := byte_limit;
    c record;
begin
    -- Once for all of them what each claim does where it has siblings: together these take no more than one may.
    if siblings > 1 and not may_claim_beside(g, flight_limit, siblings) then
        outcome := 'busy';
        foreach partition_id in array partition_ids loop
            return next;
        end loop;
        return;
    end if;
    foreach partition_id in array partition_ids loop
        exit when room <= 0 or byte_room <= 0;
        for c in
            select x.* from claim(partition_id, g, known_version, who, room, byte_room, lease_ms, mode, flight_limit, 1,
                                  null, null, null, null, is_first) x
        loop
            outcome := c.outcome; more := c.more; lease_id := c.lease_id; lease_deadline := c.lease_deadline;
            lease_epoch := c.lease_epoch; first_offset := c.first_offset; offsets := c.offsets;
            published := c.published; keys := c.keys; metas := c.metas; payloads := c.payloads;
            attempts := c.attempts; n_dead := c.n_dead; n_filtered := c.n_filtered; n_expired := c.n_expired;
            n_lost := c.n_lost;
            return next;
            if c.outcome = 'ok' then
                is_first := false;
                room := room - cardinality(c.payloads);
                byte_room := byte_room - (select sum(octet_length(x.payload)) from unnest(c.payloads) x (payload));
            end if;
        end loop;
    end loop;
end $$;
